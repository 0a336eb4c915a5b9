"""Step 5: a promoted version takes over, in the registry and behind the gateway."""

from __future__ import annotations

import time
from dataclasses import dataclass

import httpx

from perpetune import registry
from perpetune.errors import PerpetuneError
from perpetune.workspace import Workspace

SWAP_SECONDS = 120.0


@dataclass(frozen=True)
class Released:
    """What became of a promotion. `served` is None where no gateway runs at the address known."""

    version: str
    previous: str | None
    served: bool | None
    seconds: float


def release(workspace: Workspace, version: str) -> Released:
    """Move the aliases and wait until the gateway answers with the version.

    Raises PerpetuneError where a gateway runs but does not take the version over; the alias then goes back.
    """
    began = time.monotonic()
    task = workspace.params.task.name
    previous = registry.promote(task, version)
    trouble = _swap(workspace.settings.gateway_url, version, workspace.settings.gateway_headers)
    if trouble is not None and trouble.refused:
        if previous is not None:
            registry.promote(task, previous)
        raise PerpetuneError(
            f"the gateway did not take over version {version}: {trouble.reason}",
            where=str(workspace.settings.gateway_url),
            do=f"the champion is {previous or 'version ' + version} again; read the gateway's log",
        )
    return Released(version, previous, None if trouble else True, time.monotonic() - began)


@dataclass(frozen=True)
class _Trouble:
    refused: bool
    reason: str


def _swap(gateway: str | None, version: str, headers: dict[str, str]) -> _Trouble | None:
    """Ask the gateway to look at the alias now; None once it serves the version."""
    if gateway is None:
        return _Trouble(False, "no gateway is known")
    try:
        answer = httpx.post(f"{gateway}/v1/release/check", headers=headers, timeout=SWAP_SECONDS)
    except httpx.ConnectError:
        return _Trouble(False, "no gateway runs")
    except httpx.HTTPError as fault:
        return _Trouble(True, f"it did not answer ({type(fault).__name__})")
    state = answer.json()
    if state.get("serving") == version:
        return None
    return _Trouble(True, str(state.get("release") or state.get("error") or state))
