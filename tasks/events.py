"""Tell Prefect what happened to a task's model."""

from __future__ import annotations

from collections.abc import Mapping

from prefect.events import emit_event

from perpetune.runtime.events import resource


def emit(event: str, task: str, payload: Mapping[str, object]) -> None:
    """Tell Prefect that something happened to the task's model."""
    emit_event(event=event, resource=resource(task), payload=dict(payload))
