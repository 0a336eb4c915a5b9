"""The API's errors for what the follower and the engines raise."""

from __future__ import annotations

import logging

from perpetune.engines.engine import ContextExceeded, EngineDown, NotLoaded, Overloaded, Unsupported
from perpetune.gateway.api.chat.chat_request import model_name, unknown_model
from perpetune.gateway.api.errors import ApiError, context_exceeded, context_exceeded_in_words
from perpetune.gateway.releases.follower import NoReleaseLoaded, UnknownVersion
from perpetune.generation.answer import PromptTooLong
from perpetune.generation.parameters import BadSchema

logger = logging.getLogger(__name__)

_ENGINE_DOWN = "engine_unavailable"
_TIMEOUT = "timeout"
_INTERNAL_ERROR = ApiError(500, "The server failed on this request.", code="internal_error")


def api_error(fault: Exception, task: str, timeout_seconds: float) -> ApiError:
    """The error that a client gets. A fault that is no known one is logged."""
    match fault:
        case ApiError():
            return fault
        case NoReleaseLoaded():
            return ApiError(503, "No release is loaded yet.", code="not_ready", retry_after=2)
        case UnknownVersion() | NotLoaded():
            return unknown_model(model_name(task, str(fault)))
        case PromptTooLong():
            return context_exceeded(fault)
        case ContextExceeded():
            return context_exceeded_in_words(str(fault))
        case BadSchema():
            return ApiError(400, f"response_format: {fault}", param="response_format", code="invalid_value")
        case Unsupported():
            return ApiError(400, f"{fault.param}: {fault}", param=fault.param, code="unsupported_parameter")
        case Overloaded():
            message = f"Too many requests are waiting; try again in {fault.retry_after:g} s."
            return ApiError(429, message, code="overloaded", retry_after=fault.retry_after)
        case EngineDown():
            return ApiError(503, "The engine does not answer; try again in 5 s.", code=_ENGINE_DOWN, retry_after=5)
        case TimeoutError():
            return ApiError(504, f"The request timed out after {timeout_seconds:g} s.", code=_TIMEOUT)
    logger.error("a request failed", exc_info=fault)
    return _INTERNAL_ERROR


def failure_code(fault: Exception) -> str:
    """How the log names a version's failure."""
    if isinstance(fault, EngineDown):
        return _ENGINE_DOWN
    return _TIMEOUT if isinstance(fault, TimeoutError) else "internal_error"
