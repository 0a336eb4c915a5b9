"""A client of the gateway's release API: reload the aliases, or roll back.

Imports httpx and nothing heavier, because a rollback must not wait for the import of MLflow.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from perpetune.errors import NoPrevious, PerpetuneError
from perpetune.proxies import is_on_this_machine
from perpetune.records import Message
from perpetune.runtime.addresses import WORKSPACE_ID, saved_addresses
from perpetune.runtime.ownership import own_id
from perpetune.workspace import Workspace

SWAP_SECONDS = 120.0
BATCH, BATCH_CHARACTERS = 16, 16_000  # of one request: a gateway takes as much of a user
_KEY = "set PERPETUNE_API_KEY to one of its keys with role admin"
_OTHER = "unset PERPETUNE_GATEWAY_URL or set it to the gateway of this workspace; `perpetune up` starts one"
_OTHER_WORKSPACE = f"{_OTHER}. If you mean that one, set PERPETUNE_WORKSPACE_ID to what its /readyz names"
_ADVICE = {"401": _KEY, "403": _KEY, "other_task": _OTHER, "other_workspace": _OTHER_WORKSPACE}


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
    """A client of the gateway at `url`. It refuses one that serves another task or belongs to another workspace.

    `workspace` is the id of this workspace (see `addresses`), None if the gateway's owner is not known.
    """

    url: str
    task: str
    workspace: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def check(self) -> GatewayState:
        """Have the gateway reload the aliases now. Raises NoGateway, or PerpetuneError if it refuses or fails."""
        state = self._post("/v1/release/check", {})
        trial = state.get("trial")
        named = trial.get("version") if isinstance(trial, dict) else trial
        return GatewayState(state.get("serving"), state.get("champion"), named, str(state.get("release") or "ok"))

    def roll_back(self, reason: str) -> RollbackReply:
        """Roll back to the previous champion. Raises NoGateway, NoPrevious, or PerpetuneError if it refuses or fails."""
        done = self._post("/v1/release/rollback", {"reason": reason})
        return RollbackReply(str(done["from"]), str(done["to"]), float(done["seconds"]))

    def answers(self, version: str, conversations: Sequence[Sequence[Message]]) -> ReplayReply:
        """Ask a loaded version, or "previous", without logging. Raises NoGateway, or PerpetuneError if it cannot be asked."""
        found = self._post("/v1/release/answers", {"version": version, "conversations": _dumped(conversations)})
        return ReplayReply(found["version"], found["serving"], [each.get("output") for each in found["answers"]])

    def samples(
        self, version: str, conversations: Sequence[Sequence[Message]], count: int, temperature: float
    ) -> list[list[str]]:
        """`count` answers to each conversation, drawn at a temperature without logging; [] to one that failed.

        Raises NoGateway, or PerpetuneError if the version cannot be asked.
        """
        asked = {"conversations": _dumped(conversations), "n": count, "temperature": temperature}
        found = self._post("/v1/release/answers", {"version": version, **asked})
        return [list(map(str, each.get("outputs") or ())) for each in found["answers"]]

    def _post(self, path: str, body: Mapping[str, object]) -> dict[str, Any]:
        meant = {"task": self.task, **({"workspace": self.workspace} if self.workspace else {}), **body}
        try:
            with httpx.Client(timeout=SWAP_SECONDS, trust_env=not is_on_this_machine(self.url)) as client:
                answer = client.post(f"{self.url}{path}", json=meant, headers=self.headers)
        except httpx.ConnectError as fault:
            raise NoGateway from fault
        except httpx.HTTPError as fault:
            raise PerpetuneError(
                f"the gateway did not answer ({type(fault).__name__})", where=self.url, do="see the gateway's log"
            ) from fault
        if answer.is_error:
            raise self._refusal(answer)
        try:
            return dict(answer.json())
        except (ValueError, TypeError):
            raise PerpetuneError(
                "this is no gateway: its answer is no JSON object", where=self.url, do=_OTHER
            ) from None

    def _refusal(self, answer: httpx.Response) -> PerpetuneError:
        code = None
        try:
            error = answer.json()["error"]
            message, code = str(error["message"]), error.get("code")
        except (ValueError, KeyError, TypeError):
            message = answer.text[:300]
        advice = _ADVICE.get(str(code) if code in _ADVICE else str(answer.status_code))
        kind = NoPrevious if code == "nothing_to_roll_back" else PerpetuneError
        return kind(f"the gateway refused ({answer.status_code}): {message}", where=self.url, do=advice)


def batches(conversations: Sequence[tuple[Message, ...]], most: int = BATCH) -> Iterator[list[tuple[Message, ...]]]:
    """The conversations in requests of a size that the gateway takes; the first is empty if there are none."""
    batch: list[tuple[Message, ...]] = []
    characters = 0
    for messages in conversations:
        size = sum(len(message.content) for message in messages)
        if batch and (len(batch) == most or characters + size > BATCH_CHARACTERS):
            yield batch
            batch, characters = [], 0
        batch.append(messages)
        characters += size
    yield batch


def _dumped(conversations: Sequence[Sequence[Message]]) -> list[list[dict[str, Any]]]:
    return [[message.model_dump(exclude_none=True) for message in messages] for messages in conversations]


def gateway_of(workspace: Workspace) -> GatewayClient:
    """The client of PERPETUNE_GATEWAY_URL, else of the running `perpetune up`. Raises NoGateway if neither is there."""
    settings, task = workspace.settings, workspace.params.task.name
    if settings.gateway_url is not None:
        # Any workspace of this machine may own a gateway of this machine; one elsewhere is named on purpose.
        near = is_on_this_machine(settings.gateway_url)
        mine = own_id(settings, workspace.home) if near else settings.workspace_id
        return GatewayClient(settings.gateway_url, task, mine, settings.gateway_headers)
    saved = saved_addresses(workspace.home)
    if saved is None or "PERPETUNE_GATEWAY_URL" not in saved.variables:
        raise NoGateway
    url, owner = saved.variables["PERPETUNE_GATEWAY_URL"], saved.variables.get(WORKSPACE_ID)
    return GatewayClient(url, task, owner, settings.gateway_headers)
