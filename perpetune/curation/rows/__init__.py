"""Rows: their texts, keys, sources and versions."""
