"""Rows packed into token trees: which may be, their masks and positions."""
