"""What the loop decides, and why: pure functions from evidence to a verdict. Imports params and statistics.

Evidence holds numbers that others have measured, with their intervals and sample sizes. Scores and differences are
fractions of 1 here (0.02 is two points); the reasons speak of points.
"""
