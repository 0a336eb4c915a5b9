"""Evidence of drift and decay from the prediction log. Imports the prediction log, evaluation and policy."""
