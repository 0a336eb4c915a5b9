"""Answers that a hosted model gave, read from its provider's files and matched with rows."""
