"""Prefect tasks of what a decision leads to: approval, trial, release, rollback."""
