"""`/v1/embeddings`, which clients of OpenAI's API may expect here."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from perpetune.gateway.api.errors import ApiError

PATH = "/v1/embeddings"


async def refuse(_request: Request) -> Response:
    """404, because clients retry a 501."""
    message = (
        "This server answers one task and computes no embeddings. Send them to another server, and keep this one for "
        "/v1/chat/completions."
    )
    raise ApiError(404, message, code="unsupported_endpoint")
