"""Names of the Prefect events of the loop."""

from __future__ import annotations

DECAYED = "perpetune.model.decayed"
LABELS_WANTED = "perpetune.model.labels_wanted"
REFRESHED = "perpetune.model.refreshed"
UNCHANGED = "perpetune.model.unchanged"
WAITING = "perpetune.model.waiting"
TRIAL = "perpetune.model.trial"
PROMOTED = "perpetune.model.promoted"
REJECTED = "perpetune.model.rejected"
ABORTED = "perpetune.model.aborted"
DEPLOYED = "perpetune.model.deployed"
ROLLED_BACK = "perpetune.model.rolled_back"


def resource(task: str) -> dict[str, str]:
    """The Prefect resource of the task's model."""
    return {"prefect.resource.id": f"perpetune.model.{task}", "prefect.resource.name": task}
