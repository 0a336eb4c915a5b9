"""Compressed request bodies."""

from __future__ import annotations

import zlib

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from perpetune.gateway.api.errors import ApiError
from perpetune.gateway.api.request.whole_body import whole_body
from perpetune.gateway.middleware.body_limit import BodyLimits, too_large

_GZIP = zlib.MAX_WBITS | 16  # zlib's way to ask for gzip's header


class ContentEncodingMiddleware:
    """ASGI middleware that inflates gzip bodies, up to their limit; 415 for other encodings.

    The body must be bounded before: it is collected here.
    """

    def __init__(self, app: ASGIApp, limits: BodyLimits) -> None:
        self.app = app
        self.limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        encodings = encodings_of(scope) if scope["type"] == "http" else []
        if not encodings:
            await self.app(scope, receive, send)
            return
        try:
            if encodings not in (["gzip"], ["x-gzip"]):
                raise _unsupported(encodings)
            limit = self.limits.of(scope["path"])
            body = inflate(await whole_body(receive), limit)
            if len(body) > limit:
                raise too_large(scope["path"], limit)
        except ApiError as problem:
            response = problem.response({"accept-encoding": "gzip"} if problem.status == 415 else None)
            await response(scope, receive, send)
            return
        # In place, because outer middleware reads the route that the router sets in the same scope.
        scope["headers"] = _without_encoding(scope, len(body))
        unread = [body]

        async def replay() -> Message:
            if unread:
                return {"type": "http.request", "body": unread.pop(), "more_body": False}
            return await receive()

        await self.app(scope, replay, send)


def inflate(compressed: bytes, max_bytes: int) -> bytes:
    """The content of a gzip body, which may have several members, or its first `max_bytes` + 1. Raises ApiError."""
    inflated = bytearray()
    while compressed and len(inflated) <= max_bytes:
        stream = zlib.decompressobj(_GZIP)
        try:
            inflated += stream.decompress(compressed, max_bytes + 1 - len(inflated))
        except zlib.error as fault:
            raise _broken(str(fault)) from None
        if not stream.eof and len(inflated) <= max_bytes:
            raise _broken("it ends too early")
        compressed = stream.unused_data
    return bytes(inflated)


def encodings_of(scope: Scope) -> list[str]:
    """The codings of the body, in the order in which they were applied, without `identity`."""
    values = [value.decode("latin-1") for name, value in scope["headers"] if name == b"content-encoding"]
    codings = [coding.strip().lower() for coding in ",".join(values).split(",")]
    return [coding for coding in codings if coding not in ("", "identity")]


def _without_encoding(scope: Scope, length: int) -> list[tuple[bytes, bytes]]:
    replaced = (b"content-encoding", b"content-length", b"transfer-encoding")
    others = [(name, value) for name, value in scope["headers"] if name not in replaced]
    return [*others, (b"content-length", str(length).encode())]


def _broken(why: str) -> ApiError:
    return ApiError(400, f"The body is no valid gzip: {why}.", code="invalid_encoding")


def _unsupported(encodings: list[str]) -> ApiError:
    what = f"content-encoding {', '.join(encodings)} is not supported; send the body with gzip or without one."
    return ApiError(415, what, code="unsupported_encoding")
