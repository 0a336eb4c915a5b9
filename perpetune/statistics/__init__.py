"""Intervals, paired tests, confidence sequences, calibration. Imports nothing of perpetune but errors."""
