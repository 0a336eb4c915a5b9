"""The OpenAPI description, with the chat completions route, which bypasses FastAPI's parsing."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from perpetune.gateway.api.chat_reply import Completion
from perpetune.gateway.api.chat_request import ChatRequest
from perpetune.gateway.api.errors import ErrorReply

PATH_OF_COMPLETIONS = "/v1/chat/completions"

_ERRORS: dict[int | str, str] = {
    400: "The request is invalid, not supported, or too long for the model",
    404: "The model does not exist, or the pinned version is not loaded",
    413: "The request is larger than this server accepts",
    429: "Too many requests are waiting; see Retry-After",
    500: "The server failed",
    503: "No release is loaded, or the engine does not answer; see Retry-After",
    504: "The request timed out",
    "default": "Any other error",
}
_STREAM = {
    "schema": {"type": "string"},
    "example": 'data: {"object":"chat.completion.chunk", ...}\n\ndata: [DONE]\n\n',
}


async def _chat_completions(request: ChatRequest) -> Completion:
    """Answer a conversation; with `stream`, as server-sent events."""
    raise NotImplementedError(f"only for the OpenAPI description: {request.model}")


def set_openapi(app: FastAPI) -> None:
    """Set the app's OpenAPI description, including chat completions."""
    responses: dict[int | str, dict[str, Any]] = {
        status: {"model": ErrorReply, "description": text} for status, text in _ERRORS.items()
    }
    responses[200] = {"description": "The answer", "content": {"text/event-stream": _STREAM}}
    chat = APIRoute(PATH_OF_COMPLETIONS, _chat_completions, methods=["POST"], responses=responses)

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = get_openapi(title=app.title, version=app.version, routes=[chat, *app.routes])
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI documents it
