"""Finding personal data and secrets in a text, and replacing them: in the prediction log and in training data."""
