"""The workspaces whose tasks the gateway of this one serves too."""

from __future__ import annotations

from collections.abc import Iterator

from perpetune.doctor.finding import Finding, fault_of
from perpetune.errors import PerpetuneError
from perpetune.runtime.served.registered import served_workspaces
from perpetune.workspace import Workspace


def served_tasks(workspace: Workspace) -> Iterator[Finding]:
    """Whether each of them is there and fits the engine; nothing if none is registered."""
    try:
        others = served_workspaces(workspace)
    except PerpetuneError as error:
        yield fault_of("served tasks", error)
        return
    if others:
        names = [workspace.params.task.name, *(each.params.task.name for each in others)]
        yield Finding("served tasks", "ok", f"{', '.join(names)} share {workspace.params.base.model}")
