"""Paths that approve a promotion: what waits, and the answer of a person whose identity is known."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, TypeVar

from fastapi import FastAPI, Request
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from perpetune.audit.answers import answer_event
from perpetune.audit.entry import Event
from perpetune.audit.store import append
from perpetune.errors import PerpetuneError
from perpetune.gateway.api.errors import ApiError
from perpetune.gateway.api.release_routes import refusing_pages
from perpetune.prediction_log.database import error_text

Result = TypeVar("Result")


class Waiting(BaseModel):
    """A version that waits for a person, until when (UTC), and Prefect's run that takes the answer."""

    version: str
    until: datetime | None
    flow_run: str | None


class Answer(BaseModel):
    """What a person answers. Who it is comes from the key or from a trusted proxy, never from the body."""

    model_config = ConfigDict(extra="forbid")

    approve: bool
    comment: Annotated[str, Field(min_length=1, max_length=4000)]


class Answered(BaseModel):
    """The run that carries the answer out, and who gave it."""

    version: str
    by: str
    flow_run: str


@dataclass(frozen=True)
class Approvals:
    """How to read what waits, and to pass on (version, approve, by, comment); it returns the id of the run.

    Both may take seconds and raise PerpetuneError.
    """

    waiting: Callable[[], Sequence[Waiting]]
    answer: Callable[[str, bool, str, str], str]


def add_approval_paths(
    app: FastAPI,
    task: str,
    approvals: Approvals,
    identify: Callable[[Request], str | None],
    origins: Collection[str],
    errors: dict[int | str, dict[str, Any]],
    log: Engine,
) -> None:
    """Add `GET /v1/approvals` and `POST /v1/approvals/{version}`, for keys of role admin.

    An answer is in the audit log before it is passed on: without an entry nothing is approved.
    """
    known = [refusing_pages(origins)]

    @app.get("/v1/approvals", responses=errors, dependencies=known)
    async def list_approvals() -> list[Waiting]:
        """List the versions that wait for a person, the newest first."""
        return list(await _carried_out(approvals.waiting))

    @app.post("/v1/approvals/{version}", responses=errors, dependencies=known)
    async def answer_approval(version: str, answer: Answer, http: Request) -> Answered:
        """Approve or refuse a version that waits, under the identity of the key or of the proxy's user."""
        by = identify(http)
        if by is None:
            message = "An approval needs an API key, or a user whom a trusted proxy names (serve.identity_header)."
            raise ApiError(403, message, code="not_identified")
        if version not in {each.version for each in await _carried_out(approvals.waiting)}:
            raise ApiError(409, f"Version {version} does not wait for approval.", param="version", code="not_waiting")
        await asyncio.to_thread(_record, log, answer_event(by, answer.approve, task, version))
        run = await _carried_out(lambda: approvals.answer(version, answer.approve, by, answer.comment))
        return Answered(version=version, by=by, flow_run=run)


def _record(log: Engine, event: Event) -> None:
    try:
        append(log, event)
    except SQLAlchemyError as fault:
        message = f"The audit log cannot be written, so nothing was approved or refused: {error_text(fault)}"
        raise ApiError(503, message, code="not_recorded") from None


async def _carried_out(work: Callable[[], Result]) -> Result:
    try:
        return await asyncio.to_thread(work)
    except PerpetuneError as fault:
        raise ApiError(409, str(fault), code="not_possible") from None
