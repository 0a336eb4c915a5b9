"""`x-request-id` on every response."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from perpetune.gateway.api.request.request_id import HEADER, new_request_id


class RequestIdMiddleware:
    """ASGI middleware: a response without `x-request-id` gets a new one; that of a completion is the answer's id."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = message.get("headers", ())
                if not any(name.lower() == HEADER.encode() for name, _ in headers):
                    identified = [*headers, (HEADER.encode(), new_request_id().encode())]
                    message = {**message, "headers": identified}
            await send(message)

        await self.app(scope, receive, send_with_id)
