"""The history of the prediction log's tables, applied by `perpetune.prediction_log.log.open_log`."""
