"""Which task a request is for: its `model` says so, or its path, or the answer that feedback names."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qs, quote

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from perpetune.gateway.api.embeddings import PATH as EMBEDDINGS
from perpetune.gateway.api.errors import ApiError
from perpetune.gateway.api.feedback import MAX_BYTES as MAX_FEEDBACK_BYTES
from perpetune.gateway.api.feedback import PATH as FEEDBACK
from perpetune.gateway.api.request.disconnect import CLIENT_GONE, ClientDisconnected
from perpetune.gateway.app import max_body_bytes
from perpetune.gateway.middleware.access import secret_of
from perpetune.gateway.middleware.body_limit import PROMPT_PATHS, BodyLimits, read_body
from perpetune.gateway.middleware.content_encoding import encodings_of, inflate
from perpetune.gateway.tasks.feedback_of_tasks import FeedbackOfTasks
from perpetune.gateway.tasks.served_task import ServedTask, listed, own_scope

OWN_PATHS = frozenset({"/v1/models", "/healthz", "/readyz", "/metrics"})
PREFIX = "/tasks/"
_MODELS = "/v1/models/"
_RELEASE = "/v1/release/"
_APPROVALS = "/v1/approvals"


class DispatchMiddleware:
    """ASGI middleware that passes each request on to the app of its task.

    What is about all tasks, and a refusal (in `scope["refusal"]`), goes to the app below. A request without a valid key
    goes to the first task, which refuses it; its body is not read.
    """

    def __init__(self, app: ASGIApp, tasks: Sequence[ServedTask]) -> None:
        self.app = app
        self.tasks = {task.name: task for task in tasks}
        self._limits = BodyLimits(max(max_body_bytes(task.params) for task in tasks), {FEEDBACK: MAX_FEEDBACK_BYTES})
        self._seconds = max(task.params.timeout_seconds for task in tasks)
        self._feedback = FeedbackOfTasks(tasks)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or _is_about_all(scope):
            await self.app(scope, receive, send)
            return
        try:
            await self._dispatch(scope, receive, send)
        except ApiError as problem:
            scope["refusal"] = problem
            await self.app(scope, receive, _closing(send) if problem.status == 408 else send)

    async def _dispatch(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises ApiError if it is for no task; nothing was sent then."""
        path = scope["path"]
        if path.startswith(PREFIX):
            await self._pass_below(scope, receive, send)
            return
        secret = secret_of(scope)
        admitting = [task for task in self.tasks.values() if task.admits(secret)]
        if not admitting:
            await _pass_on(next(iter(self.tasks.values())), scope, receive, send)
        elif path.startswith(_MODELS):
            await _pass_on(self._of_model(path.removeprefix(_MODELS), admitting), scope, receive, send)
        elif path.startswith(_APPROVALS):
            named = parse_qs(scope["query_string"].decode("latin-1")).get("task")
            await _pass_on(self._named(named[0] if named else None, path), scope, receive, send)
        elif (scope["method"] == "POST" and (path in PROMPT_PATHS or path in (FEEDBACK, EMBEDDINGS))) or (
            scope["method"] == "POST" and path.startswith(_RELEASE)
        ):
            await self._by_body(scope, receive, send, admitting)
        else:
            await _pass_on(admitting[0], scope, receive, send)

    async def _pass_below(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a request below /tasks/NAME, where a task answers as if it were alone."""
        name, _, rest = scope["path"].removeprefix(PREFIX).partition("/")
        if name not in self.tasks:
            raise ApiError(404, f"There is no task `{name}` here, but {listed([*self.tasks])}.", code="unknown_task")
        inner = own_scope(scope, path=f"/{rest}", raw_path=quote(f"/{rest}").encode())
        await self.tasks[name].app(inner, receive, send)

    async def _by_body(self, scope: Scope, receive: Receive, send: Send, admitting: Sequence[ServedTask]) -> None:
        try:
            messages = await read_body(scope, receive, self._limits, self._seconds)
        except ClientDisconnected:
            await Response(status_code=CLIENT_GONE)(scope, receive, send)
            return
        body = _content(scope, messages, self._limits)
        if body is None:  # the task says what is wrong with it
            task = admitting[0]
        elif scope["path"] == FEEDBACK:
            found = await self._feedback.respond(scope, body, admitting)
            if not isinstance(found, ServedTask):
                await found(scope, receive, send)
                return
            task = found
        else:
            task = self._of_body(scope["path"], body, admitting)
        await _pass_on(task, scope, _replaying(messages, receive), send)

    def _of_body(self, path: str, body: bytes, admitting: Sequence[ServedTask]) -> ServedTask:
        try:
            asked = json.loads(body)
        except (ValueError, RecursionError):
            return admitting[0]  # it says what is wrong with it
        value = asked if isinstance(asked, dict) else {}
        if path.startswith(_RELEASE):
            return self._named(value.get("task"), path)
        model = value.get("model")
        return self._of_model(model, admitting) if isinstance(model, str) else admitting[0]

    def _of_model(self, model: str, admitting: Sequence[ServedTask]) -> ServedTask:
        """The task of a model's name, TASK or TASK@VERSION. Raises ApiError, with the names that the caller may use."""
        task = self.tasks.get(model.partition("@")[0])
        if task is not None:
            return task
        names = listed([each.name for each in admitting])
        message = f"The model `{model}` does not exist here, but {names}."
        raise ApiError(404, message, param="model", code="model_not_found")

    def _named(self, name: object, path: str) -> ServedTask:
        """The task that is named. Raises ApiError."""
        names = listed([*self.tasks])
        if name is None:
            message = f"This gateway serves {names}: send the request to {PREFIX}NAME{path}, or name a `task`."
            raise ApiError(400, message, param="task", code="task_needed")
        if not isinstance(name, str) or name not in self.tasks:
            message = f"This gateway serves {names}, not {name!r}: nothing was changed."
            raise ApiError(409, message, param="task", code="other_task")
        return self.tasks[name]


def _is_about_all(scope: Scope) -> bool:
    """Whether it is about no single task: also a browser's question whether its page may send a request here."""
    if scope["path"] in OWN_PATHS:
        return True
    asks_first = any(name == b"access-control-request-method" for name, _ in scope["headers"])
    return scope["method"] == "OPTIONS" and asks_first and not scope["path"].startswith(PREFIX)


async def _pass_on(task: ServedTask, scope: Scope, receive: Receive, send: Send) -> None:
    await task.app(own_scope(scope), receive, send)


def _content(scope: Scope, messages: Sequence[Message], limits: BodyLimits) -> bytes | None:
    """The body, inflated; None if it cannot be read, or is larger than that of any task."""
    body = b"".join(message.get("body", b"") for message in messages)
    encodings = encodings_of(scope)
    if not encodings:
        return body
    if encodings not in (["gzip"], ["x-gzip"]):
        return None
    limit = limits.of(scope["path"])
    try:
        inflated = inflate(body, limit)
    except ApiError:
        return None
    return inflated if len(inflated) <= limit else None


def _replaying(messages: list[Message], receive: Receive) -> Receive:
    unread = messages[::-1]

    async def replay() -> Message:
        return unread.pop() if unread else await receive()

    return replay


def _closing(send: Send) -> Send:
    """Close the connection after the response: the rest of the body would come."""

    async def send_closing(message: Any) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
        await send(message)

    return send_closing
