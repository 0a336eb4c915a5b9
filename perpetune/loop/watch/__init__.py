"""A check of the champion's traffic and what it triggers. Imports monitoring and the prediction log."""
