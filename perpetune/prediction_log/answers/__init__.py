"""Answers: which count, what was measured of them, and how busy the engine was."""
