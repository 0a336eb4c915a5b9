"""What the loop decides, and why: pure functions from evidence to a verdict with reasons.

Evidence holds numbers that others have measured, with their intervals and sample sizes. Scores and
differences are shares of 1 here (0.02 is two points); the reasons speak of points.
"""
