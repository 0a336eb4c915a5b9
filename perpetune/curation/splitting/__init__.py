"""Splits: which row is in which, for as long as the workspace lives."""
