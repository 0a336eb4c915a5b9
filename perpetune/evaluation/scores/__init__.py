"""Scores of an answer, from 0 to 1. Imports statistics."""
