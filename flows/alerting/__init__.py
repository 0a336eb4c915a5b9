"""Alerts: Prefect automations that send what happened to people, through Apprise or a notification block."""
