"""Decisions of the loop: pure functions from evidence to a verdict. Imports params and statistics.

Evidence is measured elsewhere and holds numbers with intervals and sample sizes. Scores and differences are fractions
of 1 (0.02 is two points); the reasons give points.
"""
