"""The history of the prediction log's tables, applied by `perpetune.serving.log.open_log`."""
