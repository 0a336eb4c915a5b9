"""A way past the framework for the path of most requests."""

from __future__ import annotations

from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send


class DirectMiddleware:
    """ASGI middleware, the innermost: passes POST on the path of `route` to its endpoint, without a search of all routes.

    The endpoint answers its own errors: those that the app has handlers for are translated by layers that are left out.
    """

    def __init__(self, app: ASGIApp, route: Route) -> None:
        self.app = app
        self.route = route

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST" and scope["path"] == self.route.path:
            scope["route"] = self.route  # as FastAPI's routes do, for metrics and traces
            await self.route.app(scope, receive, send)
        else:
            await self.app(scope, receive, send)
