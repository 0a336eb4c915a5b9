"""A client of the gateway's release API: reload the aliases, or roll back.

Imports httpx and nothing heavier, because a rollback must not wait for the import of MLflow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from perpetune.errors import NoPrevious, PerpetuneError
from perpetune.records import Message
from perpetune.runtime.addresses import saved_addresses
from perpetune.workspace import Workspace

SWAP_SECONDS = 120.0


class NoGateway(Exception):
    """The gateway's address is not known, or nothing listens there."""


@dataclass(frozen=True)
class RollbackReply:
    """The version rolled back, the one restored, and the seconds until it served (None without a gateway)."""

    rolled_back: str
    restored: str
    seconds: float | None


@dataclass(frozen=True)
class GatewayState:
    """The version that serves, the champion alias, the version on trial, and "ok" or the last error of a release."""

    serving: str | None
    champion: str | None
    trial: str | None
    release: str


@dataclass(frozen=True)
class ReplayReply:
    """A version's answers without logging, None for one that failed; and the version that serves."""

    version: str
    serving: str | None
    outputs: list[str | None]


@dataclass(frozen=True)
class GatewayClient:
    """A client of the gateway at `url`."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)

    def check(self) -> GatewayState:
        """Have the gateway reload the aliases now. Raises NoGateway, or PerpetuneError if it refuses or fails."""
        answer = self._post("/v1/release/check", None)
        if answer.is_error:
            raise self._refusal(answer)
        state: dict[str, Any] = answer.json()
        trial = state.get("trial")
        named = trial.get("version") if isinstance(trial, dict) else trial
        return GatewayState(state.get("serving"), state.get("champion"), named, str(state.get("release") or "ok"))

    def roll_back(self, reason: str) -> RollbackReply:
        """Roll back to the previous champion. Raises NoGateway, NoPrevious, or PerpetuneError if it refuses or fails."""
        answer = self._post("/v1/release/rollback", {"reason": reason})
        if answer.is_error:
            raise self._refusal(answer)
        done: dict[str, Any] = answer.json()
        return RollbackReply(str(done["from"]), str(done["to"]), float(done["seconds"]))

    def answers(self, version: str, conversations: Sequence[Sequence[Message]]) -> ReplayReply:
        """Ask a loaded version, or "previous", without logging. Raises NoGateway, or PerpetuneError if it cannot be asked."""
        asked = [[message.model_dump(exclude_none=True) for message in messages] for messages in conversations]
        answer = self._post("/v1/release/answers", {"version": version, "conversations": asked})
        if answer.is_error:
            raise self._refusal(answer)
        found: dict[str, Any] = answer.json()
        return ReplayReply(found["version"], found["serving"], [each.get("output") for each in found["answers"]])

    def _post(self, path: str, body: object) -> httpx.Response:
        try:
            return httpx.post(f"{self.url}{path}", json=body, headers=self.headers, timeout=SWAP_SECONDS)
        except httpx.ConnectError as fault:
            raise NoGateway from fault
        except httpx.HTTPError as fault:
            raise PerpetuneError(
                f"the gateway did not answer ({type(fault).__name__})", where=self.url, do="see the gateway's log"
            ) from fault

    def _refusal(self, answer: httpx.Response) -> PerpetuneError:
        code = None
        try:
            error = answer.json()["error"]
            message, code = str(error["message"]), error.get("code")
        except (ValueError, KeyError, TypeError):
            message = answer.text[:300]
        advice = (
            "set PERPETUNE_API_KEY to one of its keys with role admin" if answer.status_code in (401, 403) else None
        )
        kind = NoPrevious if code == "nothing_to_roll_back" else PerpetuneError
        return kind(f"the gateway refused ({answer.status_code}): {message}", where=self.url, do=advice)


def gateway_of(workspace: Workspace) -> GatewayClient:
    """The client of PERPETUNE_GATEWAY_URL, else of the running `perpetune up`. Raises NoGateway if neither is there."""
    settings = workspace.settings
    url = settings.gateway_url or saved_addresses(workspace.home).get("PERPETUNE_GATEWAY_URL")
    if url is None:
        raise NoGateway
    return GatewayClient(url, settings.gateway_headers)
