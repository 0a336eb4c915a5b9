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

from perpetune.prediction_log.storable import storable


class ErrorDetail(BaseModel):
    """What is wrong: `param` names the field at fault, `code` is for programs to read."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorReply(BaseModel):
    """The body of every error."""

    error: ErrorDetail


class ApiError(Exception):
    """A request that is answered with an error. `param` names the field at fault."""

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
        """A `ErrorReply`."""
        error = {"message": storable(str(self)), "type": _kind(self.status), "param": self.param, "code": self.code}
        return {"error": error}

    def response(self, headers: Mapping[str, str] | None = None) -> JSONResponse:
        """The HTTP reply, with these headers beside its own."""
        # Whole seconds, as the header has them, and never "at once".
        wait = {"retry-after": str(max(1, round(self.retry_after)))} if self.retry_after is not None else {}
        return JSONResponse(self.body(), self.status, {**wait, **(headers or {})})


def add_error_handlers(app: FastAPI) -> None:
    """Give every error of this app, the framework's own too, OpenAI's shape."""
    app.add_exception_handler(ApiError, _problem)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _framework)
    app.add_exception_handler(Exception, _unexpected)


def invalid(errors: Sequence[Any], body: bytes) -> ApiError:
    """What pydantic found wrong in a request's JSON, named as its sender would name it."""
    if errors[0]["type"] == "json_invalid":
        return ApiError(400, f"The body is not valid JSON: {errors[0]['ctx']['error']}.", code="invalid_json")
    try:
        known = json.loads(body)
    except ValueError:  # what pydantic reads and Python does not, like a number of 5,000 digits
        known = None
    return _of_first(errors, known)


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
    return _of_first([{**first, "loc": first["loc"][1:]}], fault.body).response()


async def _framework(request: Request, fault: Exception) -> JSONResponse:
    assert isinstance(fault, HTTPException)
    if fault.status_code == 404:
        return ApiError(404, f"There is no {request.method} {request.url.path}.", code="unknown_url").response()
    if fault.status_code == 405:
        message = f"{request.url.path} does not take {request.method}."
        return ApiError(405, message, code="method_not_allowed").response()
    return ApiError(fault.status_code, str(fault.detail)).response()


async def _unexpected(_request: Request, _fault: Exception) -> JSONResponse:
    # The framework logs the fault with its traceback; the client learns nothing of the insides.
    return ApiError(500, "The server failed on this request.", code="internal_error").response()


def _of_first(errors: Sequence[Any], body: object) -> ApiError:
    first = errors[0]
    location = _in_body(first["loc"], body, missing=first["type"] == "missing")
    if first["type"] in _TELLS_APART:
        location.append(_TELLS_APART[first["type"]])
    param = _path(location)
    message = first["msg"].removeprefix("Value error, ")
    code = "missing_required_parameter" if first["type"] == "missing" else "invalid_value"
    return ApiError(400, f"{param or 'The body'}: {message}.", param=param, code=code)


# Errors of the field that tells a union's members apart, which are located at what holds the field.
_TELLS_APART = {"unknown_role": "role", "union_tag_invalid": "type", "union_tag_not_found": "type"}


def _in_body(location: Sequence[Any], body: object, *, missing: bool) -> list[Any]:
    """The steps of pydantic's location that a client would know: those into a union's member are left out."""
    steps: list[Any] = []
    here = body
    for number, step in enumerate(location):
        if _holds(here, step):
            here = here[step]  # type: ignore[index]
        elif not (missing and number == len(location) - 1):
            continue
        steps.append(step)
    return steps


def _holds(here: object, step: object) -> bool:
    if isinstance(here, list):
        return isinstance(step, int) and step < len(here)
    return isinstance(here, dict) and step in here


def _path(location: Sequence[Any]) -> str | None:
    """`("messages", 0, "content")` as OpenAI writes it: `messages[0].content`."""
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in location]
    return "".join(parts).removeprefix(".") or None
