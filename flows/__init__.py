"""Prefect flows: the order of the tasks, and the deployments."""
