"""Rows that people annotate, in Label Studio or Argilla: what is worth a look, and what they say."""
