"""The OpenAPI description, with the chat completions route, which bypasses FastAPI's parsing."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from perpetune.gateway.api.chat.chat_reply import Completion
from perpetune.gateway.api.chat.chat_request import ChatRequest
from perpetune.gateway.api.dialects.responses import PATH as RESPONSES
from perpetune.gateway.api.dialects.responses_request import ResponsesRequest
from perpetune.gateway.api.dialects.text_completions import PATH as TEXTS
from perpetune.gateway.api.dialects.text_completions import TextCompletion, TextRequest
from perpetune.gateway.api.errors import ErrorReply
from perpetune.gateway.api.feedback import PATH as FEEDBACK
from perpetune.gateway.api.feedback import FeedbackReplies, FeedbackReply, FeedbackRequest

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
_FEEDBACK_ERRORS: dict[int | str, str] = {
    400: "The feedback cannot be right",
    404: "The log has no such answer",
    413: "The request is larger than this server accepts",
    503: "The feedback could not be stored; see Retry-After",
}
# Before OpenAPI 3.2, the schema is that of an event.
_STREAM = {
    "schema": {"type": "object", "properties": {"data": {"type": "string"}}, "required": ["data"]},
    "example": 'data: {"object":"chat.completion.chunk", ...}\n\ndata: [DONE]\n\n',
}


async def _chat_completions(request: ChatRequest) -> Completion:
    """Answer a conversation; with `stream`, as server-sent events."""
    raise NotImplementedError(f"only for the OpenAPI description: {request.model}")


async def _responses(request: ResponsesRequest) -> dict[str, object]:
    """Answer a conversation as OpenAI's Responses API does; with `stream`, as its events. Nothing is kept to be continued."""
    raise NotImplementedError(f"only for the OpenAPI description: {request.model}")


async def _text_completions(request: TextRequest) -> TextCompletion:
    """Answer a prompt, or each of a list; with `stream` and one prompt, as server-sent events."""
    raise NotImplementedError(f"only for the OpenAPI description: {request.model}")


async def _feedback(request: FeedbackRequest | list[FeedbackRequest]) -> FeedbackReply | FeedbackReplies:
    """Send feedback on answers: the correct label, a score, or a comment. One object, or many as a list or JSON Lines."""
    raise NotImplementedError(f"only for the OpenAPI description: {request}")


def set_openapi(app: FastAPI) -> None:
    """Set the app's OpenAPI description, including chat completions."""
    responses: dict[int | str, dict[str, Any]] = {
        status: {"model": ErrorReply, "description": text} for status, text in _ERRORS.items()
    }
    responses[200] = {"description": "The answer", "content": {"text/event-stream": _STREAM}}
    chat = APIRoute(PATH_OF_COMPLETIONS, _chat_completions, methods=["POST"], responses=responses)

    refusals: dict[int | str, dict[str, Any]] = {
        status: {"model": ErrorReply | FeedbackReplies, "description": text}
        for status, text in _FEEDBACK_ERRORS.items()
    }
    refusals["default"] = responses["default"]
    feedback = APIRoute(FEEDBACK, _feedback, methods=["POST"], responses=refusals)

    others = [
        APIRoute(RESPONSES, _responses, methods=["POST"], responses=responses),
        APIRoute(TEXTS, _text_completions, methods=["POST"], responses=responses),
    ]

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = get_openapi(
                title=app.title, version=app.version, routes=[chat, *others, feedback, *app.routes]
            )
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI documents it
