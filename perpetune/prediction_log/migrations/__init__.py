"""Alembic migrations of the prediction log, applied by `perpetune.prediction_log.log.open_log`."""
