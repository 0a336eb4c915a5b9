"""From the prediction log to evidence of drift and decay. Imports the prediction log, evaluation and policy."""
