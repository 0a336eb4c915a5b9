"""Limits on the size and the duration of a request body."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from perpetune.gateway.api.errors import ApiError, prompt_too_large
from perpetune.gateway.api.request.disconnect import CLIENT_GONE, ClientDisconnected

# Whose body is a prompt.
PROMPT_PATHS = frozenset({"/v1/chat/completions", "/v1/completions", "/v1/responses"})


@dataclass(frozen=True)
class BodyLimits:
    """The largest body in bytes; `larger` has the limits of paths that take more."""

    usual: int
    larger: Mapping[str, int] = field(default_factory=dict)

    def of(self, path: str) -> int:
        return max(self.usual, self.larger.get(path, 0))


class BodyLimitMiddleware:
    """ASGI middleware: 413 for a body over its limit, declared or streamed; 408 after `seconds`.

    After a 408 the connection is closed. A request whose client leaves before its body is whole goes no further.
    """

    def __init__(self, app: ASGIApp, limits: BodyLimits, seconds: float) -> None:
        self.app = app
        self.limits = limits
        self.seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            body = await read_body(scope, receive, self.limits, self.seconds)
        except ClientDisconnected:
            await Response(status_code=CLIENT_GONE)(scope, receive, send)
            return
        except ApiError as problem:
            response = problem.response()
            if problem.status == 408:
                response.headers["connection"] = "close"
            await response(scope, receive, send)
            return
        body.reverse()

        async def replay() -> Message:
            return body.pop() if body else await receive()

        await self.app(scope, replay, send)


async def read_body(scope: Scope, receive: Receive, limits: BodyLimits, seconds: float) -> list[Message]:
    """All messages of the body. Raises ApiError if it is too large or takes longer than `seconds`, or ClientDisconnected."""
    limit = limits.of(scope["path"])
    if _declared(scope) > limit:
        raise too_large(scope["path"], limit)
    body: list[Message] = []
    left = limit
    try:
        async with asyncio.timeout(seconds):
            while not body or body[-1].get("more_body"):
                body.append(await receive())
                if body[-1]["type"] == "http.disconnect":
                    raise ClientDisconnected
                left -= len(body[-1].get("body", b""))
                if left < 0:
                    raise too_large(scope["path"], limit)
    except TimeoutError:
        message = f"The body did not arrive within {seconds:g} s."
        raise ApiError(408, message, code="request_timeout") from None
    return body


def too_large(path: str, max_bytes: int) -> ApiError:
    what = f"the body is larger than {max_bytes} bytes."
    if path in PROMPT_PATHS:
        return prompt_too_large(what)
    return ApiError(413, what.capitalize(), code="request_too_large")


def _declared(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value)
    return 0
