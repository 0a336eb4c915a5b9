"""Prometheus metrics and OpenTelemetry traces. Imports engines."""
