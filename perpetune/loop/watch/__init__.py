"""One check of the monitor, and what it starts. Imports monitoring and the prediction log."""
