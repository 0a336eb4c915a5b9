"""Feedback goes to the task whose answer it names; a batch may name answers of several."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from starlette.responses import JSONResponse
from starlette.types import Scope

from perpetune.gateway.api.errors import ApiError
from perpetune.gateway.api.feedback import PATH, rows_of, shown_id
from perpetune.gateway.api.request.first_headers import first_headers
from perpetune.gateway.recording.recorder import OTHER_GATEWAY_SECONDS
from perpetune.gateway.tasks.served_task import Reply, ServedTask, ask, listed, own_scope
from perpetune.prediction_log.answers.tasks import tasks_of_answers


@dataclass(frozen=True)
class _Owners:
    """The tasks of the answers that were found, and whether a log could not be read, which may have others."""

    tasks: Mapping[str, frozenset[str]]
    incomplete: bool


class FeedbackOfTasks:
    """Finds the task of feedback, and stores a batch that is for several."""

    def __init__(self, tasks: Sequence[ServedTask]) -> None:
        self._tasks = {task.name: task for task in tasks}
        self._logs: dict[Engine, set[str]] = {}
        for task in tasks:
            self._logs.setdefault(task.log, set()).add(task.name)

    async def respond(self, scope: Scope, body: bytes, admitting: Sequence[ServedTask]) -> ServedTask | JSONResponse:
        """The task that the whole body is for, or the reply to a batch for several.

        What names no answer is for the first of `admitting`, which says so. Raises ApiError.
        """
        try:
            rows = rows_of(body, first_headers(scope).get("content-type", ""))
        except ApiError:
            return admitting[0]
        several = rows if isinstance(rows, list) else [rows]
        owners = await self._owners({name for row in several if (name := _request_id(row)) is not None})
        targets = [self._target(row, owners, admitting) for row in several]
        tasks = {target for target in targets if isinstance(target, str)}
        faults = [target for target in targets if isinstance(target, ApiError)]
        if not faults and len(tasks) <= 1:
            return self._tasks[tasks.pop()] if tasks else admitting[0]
        if not isinstance(rows, list):
            raise faults[0]
        return await self._stored(scope, several, targets)

    def _target(self, row: object, owners: _Owners, admitting: Sequence[ServedTask]) -> str | ApiError:
        """The task of a row, or why there is none."""
        if isinstance(row, ApiError):
            return row
        name = _request_id(row)
        found = sorted(owners.tasks.get(name, ())) if name is not None else []
        allowed = [task.name for task in admitting if task.name in found]
        if len(allowed) > 1:
            message = f"Requests of {listed(allowed)} have the id {name!r}: send it to /tasks/NAME{PATH}."
            return ApiError(400, message, param="request_id", code="ambiguous_request")
        if not found and name is not None and owners.incomplete:
            return ApiError(503, "The feedback could not be stored; try again.", code="log_unavailable", retry_after=5)
        return [*allowed, *found, admitting[0].name][0]  # a task that the key is not for refuses it

    async def _owners(self, names: Collection[str]) -> _Owners:
        owners = await self._look_up(names)
        if owners.tasks.keys() != set(names) and not owners.incomplete:
            await asyncio.sleep(OTHER_GATEWAY_SECONDS)
            owners = await self._look_up(names)
        return owners

    async def _look_up(self, names: Collection[str]) -> _Owners:
        spooled = {name: self._spooled(name) for name in names}
        found = {name: frozenset(answers) for name, answers in spooled.items() if answers}
        # A client's own id may be that of another task's answer too, which is in its log.
        rest, incomplete = [name for name, answers in spooled.items() if name not in answers.values()], False
        for log, here in self._logs.items() if rest else ():
            try:
                stored = await asyncio.to_thread(tasks_of_answers, log, rest)
            except SQLAlchemyError:
                incomplete = True
                continue
            for name, tasks in stored.items():
                if tasks & here:
                    found[name] = found.get(name, frozenset()) | (tasks & here)
        return _Owners(found, incomplete)

    def _spooled(self, name: str) -> dict[str, str]:
        """The ids of the answers that are still in a spool, by task."""
        found = {task.name: task.recorder.spooled(name) for task in self._tasks.values()}
        return {task: answer for task, answer in found.items() if answer is not None}

    async def _stored(self, scope: Scope, rows: Sequence[object], targets: Sequence[str | ApiError]) -> JSONResponse:
        """Store the rows of each task there, and reply row by row."""
        replies: dict[int, Mapping[str, Any]] = {}
        first_fault: int | None = None
        for number, target in enumerate(targets):
            if isinstance(target, ApiError):
                replies[number] = _refused(rows[number], target.body())
                first_fault = first_fault or target.status
        for name in dict.fromkeys(target for target in targets if isinstance(target, str)):
            mine = [number for number, target in enumerate(targets) if target == name]
            reply = await ask(self._tasks[name], *_request(scope, [rows[number] for number in mine]))
            replies |= dict(zip(mine, _row_replies([rows[number] for number in mine], reply), strict=True))
            first_fault = first_fault or (reply.status if reply.status != 200 else None)
        data = [replies[number] for number in range(len(rows))]
        refused = sum(each["status"] == "refused" for each in data)
        content = {"object": "list", "recorded": len(data) - refused, "refused": refused, "data": data}
        return JSONResponse(content, (first_fault or 200) if refused == len(data) else 200)


def _request_id(row: object) -> str | None:
    name = row.get("request_id") if isinstance(row, Mapping) else None
    return name if isinstance(name, str) else None


def _request(scope: Scope, rows: Sequence[object]) -> tuple[Scope, bytes]:
    """The request of a part of a batch."""
    body = _as_json(rows)
    own = (b"content-type", b"content-length", b"content-encoding", b"transfer-encoding")
    headers = [(name, value) for name, value in scope["headers"] if name not in own]
    headers += [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    return own_scope(scope, headers=headers), body


def _as_json(rows: Sequence[object]) -> bytes:
    try:
        return json.dumps(rows, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # half a character, which travels only as an escape
        return json.dumps(rows).encode()


def _row_replies(rows: Sequence[object], reply: Reply) -> list[Mapping[str, Any]]:
    """The reply to each row, of a task that took the part or refused it as a whole."""
    content = json.loads(reply.body)
    if "data" in content:
        return list(content["data"])
    return [_refused(row, content) for row in rows]


def _refused(row: object, error: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"request_id": shown_id(row), "status": "refused", **error}
