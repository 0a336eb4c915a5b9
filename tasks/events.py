"""Prefect events of a task's model."""

from __future__ import annotations

from collections.abc import Mapping

from prefect.events import emit_event

from perpetune.runtime.events import resource


def emit(event: str, task: str, payload: Mapping[str, object]) -> None:
    """Emit a Prefect event with the task's model as resource."""
    emit_event(event=event, resource=resource(task), payload=dict(payload))
