"""One of the tasks behind a gateway, and requests to it from inside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI
from sqlalchemy import Engine
from starlette.types import Message, Scope

from perpetune.gateway.recording.recorder import Recorder
from perpetune.gateway.releases.follower import Follower
from perpetune.gateway.telemetry.metrics import Metrics
from perpetune.params import ServeParams


@dataclass(frozen=True)
class ServedTask:
    """A task's own app (see `perpetune.gateway.app`), with its settings and its log, which tasks may share."""

    name: str
    app: FastAPI
    params: ServeParams
    log: Engine

    @property
    def follower(self) -> Follower:
        follower: Follower = self.app.state.follower
        return follower

    @property
    def recorder(self) -> Recorder:
        recorder: Recorder = self.app.state.recorder
        return recorder

    @property
    def metrics(self) -> Metrics:
        metrics: Metrics = self.app.state.metrics
        return metrics

    def admits(self, secret: str | None) -> bool:
        """Whether a request with this key, or without one, is let in. Its role is the app's matter."""
        keyring = self.app.state.keyholder.keyring
        if keyring is None or keyring.open:
            return keyring is not None
        key = keyring.find(secret) if secret else None
        return key is not None and key.is_for(self.name)


@dataclass(frozen=True)
class Reply:
    """What an app answered."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


async def ask(task: ServedTask, scope: Scope, body: bytes = b"") -> Reply:
    """What the task's app answers to the request of this scope, with this body."""
    unread: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
    sent: list[Message] = []

    async def receive() -> Message:
        return unread.pop() if unread else {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    await task.app(own_scope(scope), receive, send)
    head = next(message for message in sent if message["type"] == "http.response.start")
    return Reply(head["status"], tuple(head["headers"]), b"".join(each.get("body", b"") for each in sent))


def own_scope(scope: Scope, **changes: Any) -> Scope:
    """A copy for one app, which writes into it: two apps must not find each other's routes and callers there."""
    return {**scope, "headers": list(scope["headers"]), **changes}


def listed(tasks: Sequence[str]) -> str:
    """Names of tasks as in a sentence."""
    *others, last = [f"`{name}`" for name in tasks]
    return f"{', '.join(others)} and {last}" if others else last
