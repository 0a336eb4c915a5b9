"""The end of a gateway: it says so first, and then answers what has begun."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send


def drain(app: FastAPI) -> None:
    """From now on this app is not ready, and asks its clients to connect elsewhere; it answers all the same."""
    app.state.draining = True


class DrainingMiddleware:
    """ASGI middleware that makes `drain` known to load balancers and to clients that keep connections open."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        application: FastAPI = scope["app"]

        def draining() -> bool:
            return getattr(application.state, "draining", False)

        async def send_closing(message: Message) -> None:
            if message["type"] == "http.response.start" and draining():
                message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
            await send(message)

        if draining() and scope["path"] == "/readyz":
            await JSONResponse({"ready": False, "draining": True}, 503)(scope, receive, send_closing)
            return
        await self.app(scope, receive, send_closing)
