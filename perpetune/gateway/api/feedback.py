"""`POST /v1/feedback`: labels, scores and comments on answers, one or many at once."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from perpetune.gateway.api.errors import ApiError, ErrorDetail, invalid_value
from perpetune.gateway.api.request.content_type import is_json, is_json_lines
from perpetune.gateway.recording.recorder import FeedbackError, LogUnavailable, NotStored
from perpetune.gateway.telemetry.metrics import Metrics
from perpetune.model.release import Release
from perpetune.prediction_log.labels.rule import LabelPolicy, LabelRule
from perpetune.prediction_log.storable import storable
from perpetune.prediction_log.writes import UnknownChoice
from perpetune.records import Feedback

PATH = "/v1/feedback"
MAX_BYTES = 16 * 2**20  # of a batch: some 100,000 labels


class FeedbackRequest(BaseModel):
    """Feedback on an answer: at least one of label, score and comment."""

    model_config = ConfigDict(extra="allow", json_schema_extra={"additionalProperties": False})

    request_id: Annotated[str, Field(description="The answer's id, or your own id of the request.")]
    index: Annotated[int, Field(ge=0, description="The choice that it is about, if `n` was above 1.")] = 0
    label: Annotated[str, Field(min_length=1, description="What would have been right.")] | None = None
    score: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False, description="0 is bad, 1 is good.")] | None = None
    comment: Annotated[str, Field(min_length=1, max_length=32_000)] | None = None
    propensity: (
        Annotated[
            float,
            Field(
                gt=0, le=1, allow_inf_nan=False, description="The probability with which your own lot drew the request."
            ),
        ]
        | None
    ) = None


class FeedbackReply(BaseModel):
    """`request_id` is as it was sent, in characters that every client reads; `id` is that of the answer."""

    request_id: str
    id: str
    status: Literal["recorded"] = "recorded"


class RefusedFeedback(BaseModel):
    """A row of a batch that was not stored, with the error that it would have got alone.

    `request_id` is null if the row had none that is text.
    """

    request_id: str | None
    status: Literal["refused"]
    error: ErrorDetail


class FeedbackReplies(BaseModel):
    """The reply to a batch, row by row."""

    object: Literal["list"]
    recorded: int
    refused: int
    data: list[FeedbackReply | RefusedFeedback]


class FeedbackLog(Protocol):
    """Where feedback goes."""

    async def feedback_rows(self, rows: Sequence[Feedback]) -> list[str | FeedbackError]: ...


class FeedbackApi:
    """Answers `POST /v1/feedback`. `releases` gives the loaded releases, whose labels are those of the task."""

    def __init__(
        self, log: FeedbackLog, releases: Callable[[], Sequence[Release]], policy: LabelPolicy, metrics: Metrics
    ) -> None:
        self._log = log
        self._releases = releases
        self._policy = policy
        self._metrics = metrics

    async def respond(self, request: Request) -> Response:
        """Store one JSON object, or each row of a JSON list or of JSON Lines."""
        body = await request.body()
        rows = rows_of(body, request.headers.get("content-type", ""))
        if not isinstance(rows, list):
            [reply] = await self._stored([rows])
            if isinstance(reply, ApiError):
                raise reply
            return JSONResponse(reply)
        replies = await self._stored(rows)
        return JSONResponse(_summary(rows, replies), _status(replies))

    async def _stored(self, rows: Sequence[object]) -> list[dict[str, str] | ApiError]:
        """The reply to each row, or the error."""
        rule, now = self._rule(), datetime.now(UTC)
        read = [_read(row, rule, now) for row in rows]
        valid = [row for row in read if isinstance(row, Feedback)]
        stored = iter(await self._log.feedback_rows(valid))
        replies = [row if isinstance(row, ApiError) else _reply(row, next(stored)) for row in read]
        self._metrics.feedback.inc(sum(not isinstance(reply, ApiError) for reply in replies))
        return replies

    def _rule(self) -> LabelRule:
        """The labels of all loaded releases. If the serving one writes freely, it does not know the task's labels."""
        releases = self._releases()
        if not releases or releases[0].labels is None:
            return _cached_rule(self._policy, None, releases[0].json_schema if releases else None)
        # The serving one comes last, because the last spelling of a label is the one that counts.
        labels = tuple(label for release in reversed(releases) for label in release.labels or ())
        return _cached_rule(self._policy, labels, None)


@lru_cache(maxsize=8)
def _cached_rule(policy: LabelPolicy, labels: tuple[str, ...] | None, schema: str | None) -> LabelRule:
    return policy.rule(labels, schema)


def rows_of(body: bytes, content_type: str) -> object:
    """The JSON value of a body, or the list of the values of its lines. Raises ApiError."""
    if is_json_lines(content_type):
        return [_line(line) for line in body.splitlines() if line.strip()]
    if not is_json(content_type):
        message = "Send JSON with content-type: application/json, or JSON Lines with application/x-ndjson."
        raise ApiError(400, message, code="invalid_content_type")
    value = _line(body)
    if isinstance(value, ApiError):
        raise value
    return value


def _line(line: bytes) -> Any:
    """The JSON value; an ApiError if it is none."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as fault:
        return ApiError(400, f"The body is not valid JSON: {fault}.", code="invalid_json")


def _read(row: object, rule: LabelRule, now: datetime) -> Feedback | ApiError:
    """The row as feedback, or why it cannot be."""
    if isinstance(row, ApiError):
        return row
    try:
        given = FeedbackRequest.model_validate(row)
        _check(given, rule)
    except ValidationError as fault:
        return invalid_value(fault.errors(include_url=False), row)
    except ApiError as problem:
        return problem
    return Feedback(
        request_id=given.request_id,
        time=now,
        label=None if given.label is None else rule.spelled(given.label),
        score=given.score,
        comment=given.comment,
        choice=given.index,
        propensity=given.propensity,
    )


def _check(given: FeedbackRequest, rule: LabelRule) -> None:
    """Raises ApiError for feedback that says nothing, or something that cannot be right."""
    if given.model_extra:
        unknown, known = ", ".join(given.model_extra), ", ".join(FeedbackRequest.model_fields)
        message = f"{unknown}: unknown field. Feedback has {known}."
        raise ApiError(400, message, param=next(iter(given.model_extra)), code="unknown_parameter")
    if given.label is None and given.score is None and given.comment is None:
        raise ApiError(400, "Send at least one of label, score and comment.", code="empty_feedback")
    if given.label is not None and (fault := rule.fault(given.label)):
        hint = " Send a thumbs up or down as score 1 or 0; a new label needs task.new_labels." if rule.labels else ""
        raise ApiError(400, f"label: {fault}.{hint}", param="label", code="invalid_label")


def _reply(given: Feedback, stored: str | FeedbackError) -> dict[str, str] | ApiError:
    if isinstance(stored, str):
        return FeedbackReply(request_id=storable(given.request_id), id=stored).model_dump()
    if isinstance(stored, LogUnavailable):
        return ApiError(503, "The feedback could not be stored; try again.", code="log_unavailable", retry_after=5)
    if isinstance(stored, UnknownChoice):
        return ApiError(400, f"index: {stored.what}; {stored.do}.", param="index", code="invalid_value")
    if isinstance(stored, NotStored):
        message = f"Request {given.request_id!r} is not in the sample of requests that is stored (log.sample_rate)."
        return ApiError(404, message, param="request_id", code="not_stored")
    message = f"There is no request {given.request_id!r} in the log."
    return ApiError(404, message, param="request_id", code="unknown_request")


def _summary(rows: Sequence[object], replies: Sequence[dict[str, str] | ApiError]) -> dict[str, object]:
    data = [
        {**_name(row), **reply.body()} if isinstance(reply, ApiError) else reply
        for row, reply in zip(rows, replies, strict=True)
    ]
    refused = sum(isinstance(reply, ApiError) for reply in replies)
    return {"object": "list", "recorded": len(replies) - refused, "refused": refused, "data": data}


def _name(row: object) -> dict[str, object]:
    return {"request_id": shown_id(row), "status": "refused"}


def shown_id(row: object) -> str | None:
    """The `request_id` of a row, in characters that every client reads; None if it has none that is text."""
    sent = row.get("request_id") if isinstance(row, Mapping) else None
    return storable(sent) if isinstance(sent, str) else None


def _status(replies: Sequence[dict[str, str] | ApiError]) -> int:
    """200 if anything was recorded, or nothing was sent; else the status of the first error."""
    first = next((reply.status for reply in replies if isinstance(reply, ApiError)), 200)
    return first if replies and all(isinstance(reply, ApiError) for reply in replies) else 200
