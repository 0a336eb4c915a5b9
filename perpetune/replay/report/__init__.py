"""A replay as tables and as a plot. Imports replay."""
