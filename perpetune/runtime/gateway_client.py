"""The gateway of this workspace, asked to follow the aliases at once or to go back.

Imports httpx and nothing heavier: going back must not wait for MLflow to be imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from perpetune.errors import NoPrevious, PerpetuneError
from perpetune.runtime.addresses import remembered
from perpetune.workspace import Workspace

SWAP_SECONDS = 120.0


class NoGateway(Exception):
    """No gateway is known, or nothing listens at its address."""


@dataclass(frozen=True)
class RollbackReply:
    """The version that no longer serves, the one that serves again, and the seconds that the gateway took."""

    rolled_back: str
    restored: str
    seconds: float | None


@dataclass(frozen=True)
class GatewayState:
    """What it answers with, what the registry names, who is on trial there, and "ok" or what is wrong."""

    serving: str | None
    champion: str | None
    trial: str | None
    release: str


@dataclass(frozen=True)
class GatewayClient:
    """A gateway at `url`; each call carries `headers`."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)

    def check(self) -> GatewayState:
        """Have it follow the aliases now. Raises NoGateway, or PerpetuneError where it does not do so."""
        answer = self._post("/v1/release/check", None)
        if answer.is_error:
            raise self._refusal(answer)
        state: dict[str, Any] = answer.json()
        trial = state.get("trial")
        named = trial.get("version") if isinstance(trial, dict) else trial
        return GatewayState(state.get("serving"), state.get("champion"), named, str(state.get("release") or "ok"))

    def roll_back(self, reason: str) -> RollbackReply:
        """Have it go back to the previous champion. Raises NoGateway, NoPrevious, or PerpetuneError."""
        answer = self._post("/v1/release/rollback", {"reason": reason})
        if answer.is_error:
            raise self._refusal(answer)
        done: dict[str, Any] = answer.json()
        return RollbackReply(str(done["from"]), str(done["to"]), float(done["seconds"]))

    def _post(self, path: str, body: object) -> httpx.Response:
        try:
            return httpx.post(f"{self.url}{path}", json=body, headers=self.headers, timeout=SWAP_SECONDS)
        except httpx.ConnectError as fault:
            raise NoGateway from fault
        except httpx.HTTPError as fault:
            raise PerpetuneError(
                f"the gateway did not answer ({type(fault).__name__})", where=self.url, do="read the gateway's log"
            ) from fault

    def _refusal(self, answer: httpx.Response) -> PerpetuneError:
        code = None
        try:
            error = answer.json()["error"]
            said, code = str(error["message"]), error.get("code")
        except (ValueError, KeyError, TypeError):
            said = answer.text[:300]
        advice = "set PERPETUNE_API_KEY to one of its keys" if answer.status_code in (401, 403) else None
        kind = NoPrevious if code == "nothing_to_roll_back" else PerpetuneError
        return kind(f"the gateway refused ({answer.status_code}): {said}", where=self.url, do=advice)


def gateway_of(workspace: Workspace) -> GatewayClient:
    """The one that the environment names, else that of a `perpetune up` here. Raises NoGateway where none is known."""
    settings = workspace.settings
    url = settings.gateway_url or remembered(workspace.home).get("PERPETUNE_GATEWAY_URL")
    if url is None:
        raise NoGateway
    return GatewayClient(url, settings.gateway_headers)
