"""A recorded history run again under one retraining policy after another. Imports loop; only the CLI imports it."""
