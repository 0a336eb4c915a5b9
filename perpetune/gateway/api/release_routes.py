"""Paths of the release API: check the registry now, and roll back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from fastapi import Depends, FastAPI, Request
from pydantic import BaseModel, ConfigDict
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from perpetune.audit.entry import Event
from perpetune.audit.store import append
from perpetune.errors import PerpetuneError
from perpetune.gateway.api.errors import ApiError
from perpetune.gateway.releases.follower import Follower, FollowerState
from perpetune.prediction_log.database import error_text

logger = logging.getLogger(__name__)


class ReleaseState(BaseModel):
    """The serving version, the registry's champion, the trial; `release` is "ok" or an error message."""

    serving: str | None
    champion: str | None
    trial: str | None
    release: str


class CheckRequest(BaseModel):
    """The task that the caller means and, if it knows it, the id of its workspace (PERPETUNE_WORKSPACE_ID)."""

    model_config = ConfigDict(extra="forbid")

    task: str | None = None
    workspace: str | None = None


class RollbackRequest(CheckRequest):
    task: str
    reason: str = "requested over the API"


@dataclass(frozen=True)
class Identity:
    """The task that this gateway serves, and the id of its workspace; None if it was given none."""

    task: str
    workspace: str | None

    def require(self, request: CheckRequest) -> None:
        """Raises ApiError if the caller means another task or another workspace."""
        if request.task is not None and request.task != self.task:
            message = f"This gateway serves the task {self.task!r}, not {request.task!r}: nothing was changed."
            raise ApiError(409, message, param="task", code="other_task")
        if None not in (request.workspace, self.workspace) and request.workspace != self.workspace:
            message = f"This gateway belongs to another workspace with a task {self.task!r}: nothing was changed."
            raise ApiError(409, message, param="workspace", code="other_workspace")


def add_release_paths(
    app: FastAPI,
    follower: Follower,
    identity: Identity,
    origins: Collection[str],
    errors: dict[int | str, dict[str, Any]],
    log: Engine,
) -> None:
    """Add `POST /v1/release/check` and `POST /v1/release/rollback`; `errors` are their OpenAPI error responses.

    A rollback is recorded in the audit log of `log`, and is made whether that can be written or not.

    Both carry the task, so that a caller with the address of another gateway changes nothing. A rollback must carry it;
    a check, which only reads the registry sooner, may. Only pages of `origins` may send them: without keys any page in a
    browser of this machine could, whether CORS lets it read the answer or not.
    """
    known = [refusing_pages(origins)]

    @app.post("/v1/release/check", responses=errors, dependencies=known)
    async def check_release(request: CheckRequest | None = None) -> ReleaseState:
        """Follow the registry's aliases now. Returns when new requests go to the champion, or it failed to load."""
        identity.require(request or CheckRequest())
        try:
            return release_state(await follower.refresh_now())
        except PerpetuneError as fault:
            raise ApiError(503, str(fault), code="registry_not_read", retry_after=5) from None

    @app.post("/v1/release/rollback", responses=errors, dependencies=known)
    async def roll_back(request: RollbackRequest, http: Request) -> dict[str, object]:
        """Make the previous champion champion again, in the registry and here. Returns the time that it took."""
        identity.require(request)
        try:
            done = await follower.roll_back(request.reason)
        except PerpetuneError as fault:
            raise ApiError(409, str(fault), code="nothing_to_roll_back") from None
        event = Event(
            http.scope.get("caller", "unknown"),
            "rolled back over the API",
            f"{identity.task} version {done.rolled_back}",
            {"to": f"version {done.restored}"},
        )
        await asyncio.to_thread(_record, log, event)
        return {"from": done.rolled_back, "to": done.restored, "seconds": round(done.seconds, 4)}


def _record(log: Engine, event: Event) -> None:
    try:
        append(log, event)
    except SQLAlchemyError as fault:
        logger.error("not in the audit log: %s %s %s: %s", event.actor, event.action, event.subject, error_text(fault))


def refusing_pages(origins: Collection[str]) -> Any:
    """FastAPI's dependency of a path that pages in a browser may use only if they are of `origins`."""

    def refuse_pages(request: Request) -> None:
        origin = request.headers.get("origin")
        if origin is not None and origin not in origins:
            message = "Pages of this origin may not use the release API (serve.cors_origins)."
            raise ApiError(403, message, code="foreign_origin")

    return Depends(refuse_pages)


def release_state(state: FollowerState) -> ReleaseState:
    return ReleaseState(
        serving=state.serving,
        champion=state.champion,
        trial=state.trial,
        release=state.release_error or state.registry_error or "ok",
    )
