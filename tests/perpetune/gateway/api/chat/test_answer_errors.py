from __future__ import annotations

import logging

import pytest

from perpetune.engines.engine import ContextExceeded, EngineDown, NotLoaded, Overloaded, Unsupported
from perpetune.gateway.api.chat.answer_errors import api_error, failure_code
from perpetune.gateway.api.errors import ApiError
from perpetune.gateway.releases.follower import NoReleaseLoaded, UnknownVersion
from perpetune.generation.answer import PromptTooLong
from perpetune.generation.parameters import BadSchema


@pytest.mark.parametrize(
    ("fault", "status", "code", "param", "retry_after"),
    [
        (NoReleaseLoaded(), 503, "not_ready", None, 2),
        (UnknownVersion("7"), 404, "model_not_found", "model", None),
        (NotLoaded("7"), 404, "model_not_found", "model", None),
        (PromptTooLong(300, 256), 400, "context_length_exceeded", "messages", None),
        (ContextExceeded("300 tokens are too many."), 400, "context_length_exceeded", "messages", None),
        (BadSchema("no type"), 400, "invalid_value", "response_format", None),
        (Unsupported("logit_bias", "not here"), 400, "unsupported_parameter", "logit_bias", None),
        (Overloaded(9, retry_after=1.5), 429, "overloaded", None, 1.5),
        (EngineDown("vLLM does not answer"), 503, "engine_unavailable", None, 5),
        (TimeoutError(), 504, "timeout", None, None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_each_fault_has_its_status(
    fault: Exception, status: int, code: str, param: str | None, retry_after: float | None
) -> None:
    error = api_error(fault, "reviews", 30)
    assert (error.status, error.code, error.param, error.retry_after) == (status, code, param, retry_after)


def test_what_is_an_error_already_stays() -> None:
    error = ApiError(418, "short and stout")
    assert api_error(error, "reviews", 30) is error


def test_what_nobody_expected_is_logged_and_not_told(caplog: pytest.LogCaptureFixture) -> None:
    error = api_error(RuntimeError("the password is x"), "reviews", 30)
    assert (error.status, error.code) == (500, "internal_error") and "password" not in str(error)
    [record] = caplog.records
    assert record.levelno == logging.ERROR and record.exc_info


def test_the_log_names_a_failure_as_the_client_does() -> None:
    assert failure_code(EngineDown("gone")) == "engine_unavailable"
    assert failure_code(TimeoutError()) == "timeout"
    assert failure_code(RuntimeError()) == "internal_error"
