"""Simulate retraining policies on a recorded history. Imports loop; only the CLI imports it."""
