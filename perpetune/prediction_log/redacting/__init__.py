"""Finding personal data and secrets in a text. `perpetune.prediction_log.redaction` replaces them."""
