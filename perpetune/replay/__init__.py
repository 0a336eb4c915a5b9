"""A recorded history lived through again, under one policy of retraining after another."""
