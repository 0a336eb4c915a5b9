"""Step 5, release: move the aliases to a promoted version and have the gateway serve it."""

from __future__ import annotations

import time
from dataclasses import dataclass

from perpetune.errors import PerpetuneError
from perpetune.runtime.gateway_client import NoGateway, gateway_of
from perpetune.tracking import registry
from perpetune.workspace import Workspace


@dataclass(frozen=True)
class DeployResult:
    """The result of a release. `served` is None if no gateway runs; `seconds` until the gateway served the version."""

    version: str
    previous: str | None
    served: bool | None
    seconds: float


def release(workspace: Workspace, version: str, replaces: str | None = registry.ANY) -> DeployResult:
    """Move the aliases and wait until the gateway serves the version; may be repeated after a kill.

    `replaces` is the champion that the version was compared with. Raises ChampionChanged if it is not champion now.
    Raises PerpetuneError if a gateway runs but does not serve the version: the aliases are then moved back, by the
    gateway or here, and the version is tagged as refused.
    """
    began = time.monotonic()
    task = workspace.params.task.name
    before = registry.find(task, "previous")
    previous = before.version if before else None
    champion = registry.promote(task, version, replaces)
    if champion == version:  # a killed release had moved the aliases
        champion, previous = previous, None
    try:
        problem = _reload_gateway(workspace, version)
    except NoGateway:
        return DeployResult(version, champion, None, time.monotonic() - began)
    if problem is None:
        return DeployResult(version, champion, True, time.monotonic() - began)
    _restore_aliases(task, version, champion, previous)
    registry.tag_version(task, version, {"release.state": "refused", "release.reason": problem})
    raise PerpetuneError(
        f"the gateway does not serve version {version}: {problem}",
        where=str(workspace.settings.gateway_url),
        do=f"the champion is version {champion or version} again; see the gateway's log",
    )


def _reload_gateway(workspace: Workspace, version: str) -> str | None:
    """Have the gateway load the champion now; None if it serves the version, otherwise why it does not."""
    try:
        state = gateway_of(workspace).check()
    except PerpetuneError as fault:
        return str(fault)
    if state.serving == version:
        return None
    return state.release if state.release != "ok" else f"it serves version {state.serving}"


def _restore_aliases(task: str, version: str, champion: str | None, previous: str | None) -> None:
    """Move the aliases back, unless the gateway that refused the version has done so."""
    now = registry.find(task, "champion")
    if champion is not None and champion != version and now is not None and now.version == version:
        registry.restore(task, champion, previous)
