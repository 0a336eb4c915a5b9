"""Authentication, authorization, rate limits and CORS for every route under /v1."""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Sequence
from functools import lru_cache

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Receive, Scope, Send

from perpetune.gateway.api.errors import ApiError
from perpetune.gateway.api.feedback import MAX_BYTES as MAX_FEEDBACK_BYTES
from perpetune.gateway.api.feedback import PATH as FEEDBACK
from perpetune.gateway.middleware.body_limit import BodyLimitMiddleware, BodyLimits
from perpetune.gateway.middleware.content_encoding import ContentEncodingMiddleware
from perpetune.gateway.middleware.draining import DrainingMiddleware
from perpetune.gateway.middleware.head_method import HeadMethodMiddleware
from perpetune.gateway.middleware.rate_limit import RateLimit
from perpetune.gateway.middleware.request_id import RequestIdMiddleware
from perpetune.gateway.telemetry.metrics import Metrics, MetricsMiddleware
from perpetune.gateway.telemetry.tracing import Tracing, TracingMiddleware
from perpetune.params import ServeParams
from perpetune.prediction_log.api_keys import Key, KeyringCache, Role

_UNTIL_KEYS_ARE_READ = 2.0  # seconds


def add_middlewares(
    app: FastAPI,
    params: ServeParams,
    *,
    task: str,
    keyholder: KeyringCache,
    metrics: Metrics,
    tracing: Tracing,
    max_bytes: int,
) -> None:
    """Add all middleware to the app, innermost first.

    Refused requests are measured and traced too, errors carry CORS headers, and the body of an unauthorized request is
    not read.
    """
    limit = RateLimit(params.requests_per_minute) if params.requests_per_minute else None
    limits = BodyLimits(max_bytes, {FEEDBACK: MAX_FEEDBACK_BYTES})
    app.add_middleware(ContentEncodingMiddleware, limits=limits)
    app.add_middleware(BodyLimitMiddleware, limits=limits, seconds=params.timeout_seconds)
    app.add_middleware(
        AccessMiddleware,
        keyholder=keyholder,
        limit=limit,
        wrong_keys=RateLimit(params.wrong_keys_per_minute),
        metrics=metrics,
        routes=app.router.routes,  # the list of the router itself, to which the app adds routes later
        task=task,
    )
    if params.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=params.cors_origins,
            allow_methods=("GET", "HEAD", "POST"),
            allow_headers=("*",),  # OpenAI's browser client sends a dozen of them
            expose_headers=("x-request-id", "retry-after"),
        )
    app.add_middleware(DrainingMiddleware)
    if tracing.tracer:
        app.add_middleware(TracingMiddleware, tracer=tracing.tracer, task=task)
    app.add_middleware(MetricsMiddleware, metrics=metrics)
    app.add_middleware(RequestIdMiddleware)
    app.add_middleware(HeadMethodMiddleware)


class AccessMiddleware:
    """ASGI middleware: 401 without a valid key, 403 without the required role or for another task, 429 over a rate limit.

    `wrong_keys` limits the requests of an address with keys that are not valid. A valid key passes whatever others of
    its address send: behind a proxy that is all of them. A path that none of the `routes` has needs no role: it is 404
    for every key. While no key was ever created, all requests are allowed. The key is removed from the request.
    """

    def __init__(
        self,
        app: ASGIApp,
        keyholder: KeyringCache,
        limit: RateLimit | None,
        metrics: Metrics,
        wrong_keys: RateLimit | None = None,
        routes: Sequence[BaseRoute] | None = None,
        task: str | None = None,
    ) -> None:
        self.app = app
        self.task = task
        self.routes = routes
        self.keyholder = keyholder
        self.limit = limit
        self.wrong_keys = wrong_keys
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and _is_protected(scope["path"]):
            try:
                key = self._authenticate(scope)
                scope["caller"] = f"key {key.name}" if key else _address(scope)
                self._check_rate(scope, key)
            except ApiError as problem:
                await _send_error(problem, scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _authenticate(self, scope: Scope) -> Key | None:
        """The caller's key; None if no keys exist. Raises ApiError."""
        secret = _pop_key(scope)
        keyring = self.keyholder.keyring
        if keyring is None:
            message = "The API keys cannot be read yet."
            raise ApiError(503, message, code="keys_unavailable", retry_after=_UNTIL_KEYS_ARE_READ)
        if keyring.open:
            return None
        key = keyring.find(secret) if secret else None
        if key is None:
            self.metrics.unauthorized.labels("invalid_api_key").inc()
            if secret and self.wrong_keys is not None:
                self._take(self.wrong_keys, _address(scope), "Too many requests with an API key that is not valid")
            what = "This API key is not valid." if secret else "This request has no API key."
            raise ApiError(401, f"{what} Send `Authorization: Bearer KEY`.", code="invalid_api_key")
        role = role_for(scope["path"])
        if not key.may(role) and self._exists(scope):
            self.metrics.unauthorized.labels("insufficient_permissions").inc()
            raise ApiError(403, f"This request needs an API key with the role {role}.", code="insufficient_permissions")
        if self.task is not None and not key.is_for(self.task) and self._exists(scope):
            self.metrics.unauthorized.labels("key_of_other_task").inc()
            message = f"This API key is for {' and '.join(key.tasks)} only, not for {self.task}."
            raise ApiError(403, message, code="key_of_other_task")
        return key

    def _exists(self, scope: Scope) -> bool:
        return self.routes is None or any(route.matches(scope)[0] is not Match.NONE for route in self.routes)

    def _check_rate(self, scope: Scope, key: Key | None) -> None:
        """Count one request of the caller. Raises ApiError over the limit. Release paths are not limited."""
        if self.limit is None or scope["path"].startswith("/v1/release/"):
            return
        self._take(self.limit, f"key {key.name}" if key else _address(scope), "Rate limit exceeded")

    def _take(self, limit: RateLimit, caller: str, what: str) -> None:
        wait = limit.take(caller)
        if wait:
            self.metrics.rate_limited.inc()
            message = f"{what}; try again in {wait:.1f} s."
            raise ApiError(429, message, code="rate_limit_exceeded", retry_after=math.ceil(wait))


_ASKING = {"/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/embeddings", "/v1/models"}


def role_for(path: str) -> Role:
    """The role that a path under /v1 needs; admin by default."""
    if path in _ASKING or path.startswith("/v1/models/"):
        return "ask"
    return "feedback" if path == "/v1/feedback" else "admin"


def _is_protected(path: str) -> bool:
    return path == "/v1" or path.startswith("/v1/")


def _pop_key(scope: Scope) -> str | None:
    """Remove the key from the request, so that nothing downstream can log it."""
    secret = secret_of(scope)
    # In place, because outer middleware reads the route that the router sets in the same scope.
    scope["headers"] = [(name, value) for name, value in scope["headers"] if name != b"authorization"]
    return secret


def secret_of(scope: Scope) -> str | None:
    """The key that a request carries; None if it has none, or several."""
    credentials = [value for name, value in scope["headers"] if name == b"authorization"]
    if len(credentials) != 1:
        return None
    scheme, _, secret = credentials[0].decode("latin-1").partition(" ")
    return secret.strip() if scheme.lower() == "bearer" else None


def _address(scope: Scope) -> str:
    """The client's IPv4 address, or its IPv6 /64 network, which one client usually has."""
    return _network((scope.get("client") or ("unknown",))[0])


@lru_cache(maxsize=10_000)
def _network(host: str) -> str:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return f"address {host}"
    if isinstance(address, ipaddress.IPv4Address):
        return f"address {address}"
    return f"network {ipaddress.IPv6Network((int(address), 64), strict=False)}"


async def _send_error(problem: ApiError, scope: Scope, receive: Receive, send: Send) -> None:
    response = problem.response()
    if problem.status == 401:
        response.headers["www-authenticate"] = 'Bearer realm="perpetune"'
    await response(scope, receive, send)
