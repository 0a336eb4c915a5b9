"""Draining before shutdown: not ready for load balancers, but still serving."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from perpetune.gateway.middleware.connection import ConnectionProtocol


def drain(app: FastAPI) -> None:
    """Mark the app as draining: /readyz answers 503, and responses close their connections."""
    app.state.draining = True


class DrainingMiddleware:
    """ASGI middleware that applies `drain`."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        application: FastAPI = scope["app"]

        def draining() -> bool:
            return "draining" in application.state  # asking it for what it has not would raise an error inside

        async def send_closing(message: Message) -> None:
            if message["type"] == "http.response.start" and draining():
                message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
            await send(message)

        if draining() and scope["path"].endswith("/readyz"):  # of one of several tasks too
            await JSONResponse({"ready": False, "draining": True}, 503)(scope, receive, send_closing)
            return
        await self.app(scope, receive, send_closing)


class DrainingProtocol(ConnectionProtocol):
    """Answers a request that is on its way while the server stops.

    uvicorn closes every connection that has no request under way, also one whose request was sent and not yet read.
    """

    last_call_seconds = 1.0

    def shutdown(self) -> None:
        if self.is_answering:
            super().shutdown()
        else:
            self.loop.call_later(self.last_call_seconds, self._shutdown_unless_asked)

    def _shutdown_unless_asked(self) -> None:
        # The time limit of a head ends the wait for the rest of it.
        (self.shutdown if self.is_receiving_head else super().shutdown)()
