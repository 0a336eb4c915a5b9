"""Erasing rows from everything that holds them. Imports curation, the prediction log and tracking."""
