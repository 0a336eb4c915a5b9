"""Prefect tasks, a module for each step: retries, timeouts, run names, artifacts and events; no logic."""
