"""Step 5: a promoted version takes over, in the registry and behind the gateway."""

from __future__ import annotations

import time
from dataclasses import dataclass

from perpetune.errors import PerpetuneError
from perpetune.runtime.gateway_client import NoGateway, gateway_of
from perpetune.tracking import registry
from perpetune.workspace import Workspace


@dataclass(frozen=True)
class DeployResult:
    """What became of a promotion. `served` is None where no gateway runs at the address known."""

    version: str
    previous: str | None
    served: bool | None
    seconds: float


def release(workspace: Workspace, version: str) -> DeployResult:
    """Move the aliases and wait until the gateway answers with the version.

    Raises PerpetuneError where a gateway runs but does not take the version over: the aliases are then as before,
    moved back by the gateway or, where it did not come to that, here, and the version is tagged as refused.
    """
    began = time.monotonic()
    task = workspace.params.task.name
    before = registry.find(task, "previous")
    champion = registry.promote(task, version)
    try:
        trouble = _swap(workspace, version)
    except NoGateway:
        return DeployResult(version, champion, None, time.monotonic() - began)
    if trouble is None:
        return DeployResult(version, champion, True, time.monotonic() - began)
    _take_back(task, version, champion, before.version if before else None)
    registry.tag_version(task, version, {"release.state": "refused", "release.reason": trouble})
    raise PerpetuneError(
        f"the gateway did not take over version {version}: {trouble}",
        where=str(workspace.settings.gateway_url),
        do=f"the champion is {champion or 'version ' + version} again; read the gateway's log",
    )


def _swap(workspace: Workspace, version: str) -> str | None:
    """Ask the gateway to follow the aliases now; None once it serves the version, else why it does not."""
    try:
        state = gateway_of(workspace).check()
    except PerpetuneError as fault:
        return str(fault)
    if state.serving == version:
        return None
    return state.release if state.release != "ok" else f"it serves version {state.serving}"


def _take_back(task: str, version: str, champion: str | None, previous: str | None) -> None:
    """Only where the version is still named: a gateway that refuses one names its predecessor again itself."""
    now = registry.find(task, "champion")
    if champion is not None and champion != version and now is not None and now.version == version:
        registry.restore(task, champion, previous)
