"""Alembic migrations of the prediction log, applied by `perpetune.prediction_log.database.open_log`."""
