"""Label requests: predictions that people are asked to label, stored in the prediction log."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, get_args

from sqlalchemy import ColumnElement, Engine, and_, exists, func, insert, literal, select

from perpetune.prediction_log.label_rule import ANY_LABEL, LabelRule
from perpetune.prediction_log.tables import StorableText, UtcTime, feedback, label_requests, predictions

LabelReason = Literal["random", "uncertain"]


@dataclass(frozen=True)
class LabelRequest:
    """A prediction to label, and why it was chosen ("random" or "uncertain")."""

    request_id: str
    input: str
    answer: str
    confidence: float | None
    why: LabelReason


def request_labels(log: Engine, chosen: Sequence[tuple[str, LabelReason]], time: datetime) -> int:
    """Request labels for these predictions; returns the number of new requests.

    An existing request keeps its reason. Predictions that are no longer in the log are skipped.
    """
    by_reason = {why: [request_id for request_id, reason in chosen if reason == why] for why in get_args(LabelReason)}
    with log.connect().execution_options(writes=True) as connection, connection.begin():
        return sum(len(connection.execute(_asking(ids, time, why)).all()) for why, ids in by_reason.items())


def _asking(request_ids: list[str], time: datetime, why: LabelReason) -> Any:
    rows = select(predictions.c.id, literal(time, UtcTime()), literal(why, StorableText())).where(
        predictions.c.id.in_(request_ids), ~exists().where(label_requests.c.request_id == predictions.c.id)
    )
    statement = insert(label_requests).from_select(["request_id", "time", "why"], rows)
    return statement.returning(label_requests.c.request_id)


def open_requests(
    log: Engine, task: str, *, version: str | None = None, rule: LabelRule = ANY_LABEL
) -> list[LabelRequest]:
    """The open label requests, oldest first; with `version` only those for its answers.

    A label that the rule refuses leaves its request open.
    """
    columns = (predictions.c.id, predictions.c.input, predictions.c.output, predictions.c.confidence)
    with log.connect() as connection:
        rows = select(*columns, label_requests.c.why).where(_open(task, version, rule.accepted(connection, task)))
        found = connection.execute(rows.order_by(predictions.c.time, predictions.c.id)).all()
    return [LabelRequest(*row) for row in found]


def count_open(log: Engine, task: str, rule: LabelRule = ANY_LABEL) -> int:
    """The number of open label requests."""
    with log.connect() as connection:
        accepted = rule.accepted(connection, task)
        return connection.execute(select(func.count()).where(_open(task, None, accepted))).scalar_one()


def count_unasked(log: Engine, request_ids: Collection[str]) -> int:
    """How many of these predictions no label request names: a label of theirs arrived unasked."""
    wanted = set(request_ids)
    with log.connect() as connection:
        asked = connection.execute(select(label_requests.c.request_id)).scalars()
        return len(wanted.difference(asked))


def requested_for_uncertainty(request_id: ColumnElement[Any]) -> ColumnElement[bool]:
    """Whether this request's label was requested because the model was unsure of its answer.

    Such answers are wrong more often than others, so their labels are used for training but not for evaluation.
    """
    return request_id.in_(select(label_requests.c.request_id).where(label_requests.c.why == "uncertain"))


def _open(task: str, version: str | None, accepted: ColumnElement[bool]) -> ColumnElement[bool]:
    labelled = exists().where(feedback.c.request_id == label_requests.c.request_id, accepted)
    mine = [predictions.c.id == label_requests.c.request_id, predictions.c.task == task, ~labelled]
    return and_(*mine, *([predictions.c.version == version] if version else []))
