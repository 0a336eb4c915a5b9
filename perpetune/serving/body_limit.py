"""A bound on what a request may send, kept while it arrives."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from perpetune.serving.problems import Problem


class BodyLimit:
    """ASGI middleware that answers 413 to a body of more than `max_bytes`, declared or streamed."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self.app = app
        self.max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        too_large = Problem(413, f"The body is larger than {self.max_bytes} bytes.", code="request_too_large")
        if _declared(scope) > self.max_bytes:
            await too_large.response()(scope, receive, send)
            return
        body: list[Message] = []
        left = self.max_bytes
        while left >= 0:
            message = await receive()
            body.append(message)
            left -= len(message.get("body", b""))
            if message["type"] != "http.request" or not message.get("more_body"):
                break
        if left < 0:
            await too_large.response()(scope, receive, send)
            return
        body.reverse()

        async def replay() -> Message:
            return body.pop() if body else await receive()

        await self.app(scope, replay, send)


def _declared(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value)
    return 0
