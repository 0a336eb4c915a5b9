"""Errors in OpenAI's shape: `{"error": {"message", "type", "param", "code"}}`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from perpetune.gateway.api.request.request_id import HEADER, new_request_id
from perpetune.generation.answer import PromptTooLong
from perpetune.prediction_log.storable import storable


class ErrorDetail(BaseModel):
    """The error: `param` names the invalid field, `code` is machine-readable."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorReply(BaseModel):
    """The body of every error."""

    error: ErrorDetail


class ApiError(Exception):
    """An error response. `param` names the invalid field."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code
        self.retry_after = retry_after

    def body(self) -> dict[str, object]:
        """The JSON of an `ErrorReply`."""
        param = None if self.param is None else storable(self.param)
        error = {"message": storable(str(self)), "type": _kind(self.status), "param": param, "code": self.code}
        return {"error": error}

    def response(self, headers: Mapping[str, str] | None = None) -> JSONResponse:
        """The HTTP response, with additional headers."""
        # The header has whole seconds; 0 would mean an immediate retry.
        wait = {"retry-after": str(max(1, round(self.retry_after)))} if self.retry_after is not None else {}
        return JSONResponse(self.body(), self.status, {**wait, **(headers or {})})


def context_exceeded(fault: PromptTooLong) -> ApiError:
    """In the words of OpenAI, which clients look for in order to shorten the conversation or choose another model."""
    needed = f"your messages resulted in {fault.tokens} tokens. Please reduce the length of the messages."
    if fault.answer:
        needed = (
            f"you requested {fault.tokens + fault.answer} tokens ({fault.tokens} in the messages, {fault.answer} in the "
            "completion). Please reduce the length of the messages or completion."
        )
    return context_exceeded_in_words(
        f"This model's maximum context length is {fault.limit + fault.answer} tokens. However, {needed}"
    )


def context_exceeded_in_words(why: str) -> ApiError:
    """An overflow. LangChain knows it by the last sentence: recent clients of OpenAI's do not show it the code."""
    return ApiError(400, f"{why} The prompt is too long.", param="messages", code="context_length_exceeded")


def prompt_too_large(why: str, param: str | None = None) -> ApiError:
    """A prompt that is refused before it is tokenized, in words that LiteLLM and LangChain take for an overflow."""
    message = f"The prompt is too long and exceeds the context window: {why} Please reduce the length of the messages."
    return ApiError(413, message, param=param, code="request_too_large")


def add_error_handlers(app: FastAPI) -> None:
    """Return all errors of this app in OpenAI's format, including the framework's."""
    app.add_exception_handler(ApiError, _problem)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _framework)
    app.add_exception_handler(Exception, _unexpected)


def invalid(errors: Sequence[Any], body: bytes) -> ApiError:
    """The error for pydantic's errors on a request, with the field's name as in the request."""
    if errors[0]["type"] == "json_invalid":
        return ApiError(400, f"The body is not valid JSON: {errors[0]['ctx']['error']}.", code="invalid_json")
    try:
        parsed = json.loads(body)
    except ValueError:  # pydantic reads some JSON that Python does not, such as a number of 5,000 digits
        parsed = None
    return invalid_value(errors, parsed)


def invalid_value(errors: Sequence[Any], value: object) -> ApiError:
    """The error for pydantic's errors on a request whose JSON is this value."""
    first = errors[0]
    location = _in_body(first["loc"], value, missing=first["type"] == "missing")
    if first["type"] in _DISCRIMINATORS:
        location.append(_DISCRIMINATORS[first["type"]])
    param = _path(location)
    message = first["msg"].removeprefix("Value error, ")
    code = "missing_required_parameter" if first["type"] == "missing" else "invalid_value"
    return ApiError(400, f"{param or 'The body'}: {message}.", param=param, code=code)


def _kind(status: int) -> str:
    if status == 429:
        return "rate_limit_error"
    return "invalid_request_error" if status < 500 else "server_error"


async def _problem(_request: Request, fault: Exception) -> JSONResponse:
    assert isinstance(fault, ApiError)
    return fault.response()


async def _invalid(_request: Request, fault: Exception) -> JSONResponse:
    assert isinstance(fault, RequestValidationError)
    first = fault.errors()[0]
    if first["type"] == "json_invalid":
        position = f"{first['ctx']['error']} (character {first['loc'][-1]})"
        return ApiError(400, f"The body is not valid JSON: {position}.", code="invalid_json").response()
    return invalid_value([{**first, "loc": first["loc"][1:]}], fault.body).response()


async def _framework(request: Request, fault: Exception) -> JSONResponse:
    assert isinstance(fault, HTTPException)
    if fault.status_code == 404:
        return ApiError(404, f"There is no {request.method} {request.url.path}.", code="unknown_url").response()
    if fault.status_code == 405:
        message = f"{request.url.path} does not take {request.method}."
        return ApiError(405, message, code="method_not_allowed").response()
    return ApiError(fault.status_code, str(fault.detail)).response()


async def _unexpected(_request: Request, _fault: Exception) -> JSONResponse:
    # The framework logs the traceback; the client gets no internals.
    # Outside all middleware, so that it has no id yet.
    problem = ApiError(500, "The server failed on this request; see its log.", code="internal_error")
    return problem.response({HEADER: new_request_id()})


# Errors of a union's discriminator, which pydantic locates at the object that has the field.
_DISCRIMINATORS = {"unknown_role": "role", "union_tag_invalid": "type", "union_tag_not_found": "type"}


def _in_body(location: Sequence[Any], body: object, *, missing: bool) -> list[Any]:
    """pydantic's location without the steps into a union's member, which the client does not know."""
    steps: list[Any] = []
    value = body
    for number, step in enumerate(location):
        if _contains(value, step):
            value = value[step]  # type: ignore[index]
        elif not (missing and number == len(location) - 1):
            continue
        steps.append(step)
    return steps


def _contains(value: object, step: object) -> bool:
    if isinstance(value, list):
        return isinstance(step, int) and step < len(value)
    return isinstance(value, dict) and step in value


def _path(location: Sequence[Any]) -> str | None:
    """`("messages", 0, "content")` as OpenAI writes it: `messages[0].content`."""
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in location]
    return "".join(parts).removeprefix(".") or None
