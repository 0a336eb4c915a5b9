"""Serving: the gateway (HTTP), the engines behind it, and the log of what they answered."""
