"""Flows that run in the process of a test, against a real Prefect server."""

from __future__ import annotations

from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker


def send_what_is_left() -> None:
    """Send the logs and events of flows that have ended while their server still takes them: the next server's would wait."""
    APILogWorker.drain_all()
    EventsWorker.drain_all()
