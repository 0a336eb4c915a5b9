"""Prefect tasks, one module for each step: retries, timeouts, run names and artifacts, nothing else."""
