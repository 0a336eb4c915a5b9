"""ASGI middleware: API keys, rate and size limits, draining. Imports api errors and telemetry."""
