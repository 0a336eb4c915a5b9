"""Outcomes of a trial's requests, read from the prediction log."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Engine, FromClause, func, or_, select

from perpetune.prediction_log.cut_off import is_whole
from perpetune.prediction_log.label_requests import requested_for_uncertainty
from perpetune.prediction_log.tables import failures, feedback, predictions, shadows
from perpetune.records import Route


@dataclass(frozen=True)
class Outcome:
    """One request: its answer (None if it failed), and its newest label and score.

    `first_feedback` is the id of its first label or score. Labels requested because the champion was unsure are left
    out, because they would count against the champion only.
    """

    id: str
    time: datetime
    output: str | None
    latency_ms: float
    label: str | None = None
    score: float | None = None
    first_feedback: int | None = None


def outcomes_of(log: Engine, task: str, version: str, route: Route, since: datetime, limit: int) -> list[Outcome]:
    """The first `limit` requests since then that the version got by this route, oldest first."""
    mine = (predictions.c.task == task, predictions.c.version == version, predictions.c.route == route, is_whole())
    answered = _with_feedback(predictions, predictions.c.output, predictions.c.latency_ms).where(
        *mine, predictions.c.time >= since
    )
    failed = select(failures.c.id, failures.c.time, failures.c.latency_ms).where(
        failures.c.task == task,
        failures.c.version == version,
        failures.c.route == route,
        failures.c.time >= since,
    )
    with log.connect() as connection:
        rows = connection.execute(answered.order_by(predictions.c.time, predictions.c.id).limit(limit)).all()
        failed_rows = connection.execute(failed.order_by(failures.c.time, failures.c.id).limit(limit)).all()
    found = [Outcome(*row) for row in rows] + [Outcome(row.id, row.time, None, row.latency_ms) for row in failed_rows]
    return sorted(found, key=lambda each: (each.time, each.id))[:limit]


def shadow_outcomes(log: Engine, task: str, version: str, since: datetime, limit: int) -> list[tuple[Outcome, Outcome]]:
    """The outcomes of the champion and the shadow for the first `limit` requests that both answered, oldest first."""
    pairs = predictions.join(shadows, shadows.c.request_id == predictions.c.id)
    statement = (
        _with_feedback(pairs, predictions.c.output, predictions.c.latency_ms)
        .add_columns(
            shadows.c.output.label("shadow"), shadows.c.latency_ms.label("shadow_ms"), shadows.c.error.label("error")
        )
        .where(predictions.c.task == task, shadows.c.version == version, predictions.c.time >= since)
    )
    with log.connect() as connection:
        rows = connection.execute(statement.order_by(predictions.c.time, predictions.c.id).limit(limit)).all()
    return [(Outcome(*row[:7]), _shadow(row)) for row in rows]


def _shadow(row: Any) -> Outcome:
    output = None if row.error else row.shadow
    return Outcome(row.id, row.time, output, row.shadow_ms, row.label, None, row.first_feedback)


def _with_feedback(source: FromClause, output: Any, latency: Any) -> Any:
    """A SELECT with columns in the order of Outcome's fields."""
    columns = (predictions.c.id, predictions.c.time, output, latency)
    return select(*columns, _newest("label"), _newest("score"), _first_feedback_id()).select_from(source)


def _newest(column: str) -> Any:
    feedback_rows = select(feedback.c[column]).where(*_unbiased_feedback(), feedback.c[column].is_not(None))
    return feedback_rows.order_by(feedback.c.time.desc(), feedback.c.id.desc()).limit(1).scalar_subquery().label(column)


def _first_feedback_id() -> Any:
    feedback_rows = or_(feedback.c.label.is_not(None), feedback.c.score.is_not(None))
    number = select(func.min(feedback.c.id)).where(*_unbiased_feedback(), feedback_rows)
    return number.scalar_subquery().label("first_feedback")


def _unbiased_feedback() -> tuple[ColumnElement[bool], ...]:
    return feedback.c.request_id == predictions.c.id, ~requested_for_uncertainty(feedback.c.request_id)
