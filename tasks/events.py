"""The loop's events, which automations react to."""

from __future__ import annotations

from collections.abc import Mapping

from prefect.events import emit_event

DECAYED = "perpetune.model.decayed"
REFRESHED = "perpetune.model.refreshed"
PROMOTED = "perpetune.model.promoted"
REJECTED = "perpetune.model.rejected"
DEPLOYED = "perpetune.model.deployed"


def resource(task: str) -> str:
    return f"perpetune.model.{task}"


def emit(event: str, task: str, payload: Mapping[str, object]) -> None:
    """Tell Prefect that something happened to the task's model."""
    emit_event(
        event=event,
        resource={"prefect.resource.id": resource(task), "prefect.resource.name": task},
        payload=dict(payload),
    )
