"""Watching the champion: windows of predictions, drift, and decay."""
