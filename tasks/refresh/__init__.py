"""Prefect tasks of a refresh, up to its decision."""
