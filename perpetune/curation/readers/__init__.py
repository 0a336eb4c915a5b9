"""Readers of CSV, JSON Lines, Parquet and the bundled reviews. Imports only what all parts share."""
