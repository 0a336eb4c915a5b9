"""Errors in OpenAI's shape: `{"error": {"message", "type", "param", "code"}}`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from perpetune.serving.storable import storable


class Problem(Exception):
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

    def response(self) -> JSONResponse:
        error = {"message": storable(str(self)), "type": _kind(self.status), "param": self.param, "code": self.code}
        # Whole seconds, as the header has them, and never "at once".
        headers = {"retry-after": str(max(1, round(self.retry_after)))} if self.retry_after is not None else None
        return JSONResponse({"error": error}, self.status, headers)


def answer_in_openai_shape(app: FastAPI) -> None:
    """Give every error of this app, the framework's own too, OpenAI's shape."""
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _framework)
    app.add_exception_handler(Exception, _unexpected)


def _kind(status: int) -> str:
    if status == 429:
        return "rate_limit_error"
    return "invalid_request_error" if status < 500 else "server_error"


async def _problem(_request: Request, fault: Exception) -> JSONResponse:
    assert isinstance(fault, Problem)
    return fault.response()


async def _invalid(_request: Request, fault: Exception) -> JSONResponse:
    assert isinstance(fault, RequestValidationError)
    first = fault.errors()[0]
    if first["type"] == "json_invalid":
        place = f"{first['ctx']['error']} (character {first['loc'][-1]})"
        return Problem(400, f"The body is not valid JSON: {place}.", code="invalid_json").response()
    param = _path(first["loc"][1:])
    message = first["msg"].removeprefix("Value error, ")
    code = "missing_required_parameter" if first["type"] == "missing" else "invalid_value"
    return Problem(400, f"{param or 'The body'}: {message}.", param=param, code=code).response()


async def _framework(request: Request, fault: Exception) -> JSONResponse:
    assert isinstance(fault, HTTPException)
    if fault.status_code == 404:
        return Problem(404, f"There is no {request.method} {request.url.path}.", code="unknown_url").response()
    if fault.status_code == 405:
        message = f"{request.url.path} does not take {request.method}."
        return Problem(405, message, code="method_not_allowed").response()
    return Problem(fault.status_code, str(fault.detail)).response()


async def _unexpected(_request: Request, _fault: Exception) -> JSONResponse:
    # The framework logs the fault with its traceback; the client learns nothing of the insides.
    return Problem(500, "The server failed on this request.", code="internal_error").response()


def _path(location: Sequence[Any]) -> str | None:
    """`("messages", 0, "content")` as OpenAI writes it: `messages[0].content`."""
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in location]
    return "".join(parts).removeprefix(".") or None
