"""Outcomes of a trial's requests, read from the prediction log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Engine, FromClause, func, or_, select

from perpetune.prediction_log.cut_off import is_whole
from perpetune.prediction_log.label_rule import ANY_LABEL, LabelRule, is_score
from perpetune.prediction_log.provenance import joined, may_judge
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


def outcomes_of(
    log: Engine,
    task: str,
    version: str,
    route: Route,
    since: datetime,
    limit: int,
    rule: LabelRule = ANY_LABEL,
    *,
    unasked: bool = True,
) -> list[Outcome]:
    """The first `limit` requests since then that the version got by this route, oldest first.

    Labels that the rule refuses count as none, and without `unasked` those that came unasked.
    """
    mine = (predictions.c.task == task, predictions.c.version == version, predictions.c.route == route, is_whole())
    failed = select(failures.c.id, failures.c.time, failures.c.latency_ms).where(
        failures.c.task == task,
        failures.c.version == version,
        failures.c.route == route,
        failures.c.time >= since,
    )
    with log.connect() as connection:
        accepted = rule.accepted(connection, task)
        answered = _with_feedback(
            predictions, predictions.c.output, predictions.c.latency_ms, accepted, unasked=unasked
        )
        answered = answered.where(*mine, predictions.c.time >= since)
        rows = connection.execute(answered.order_by(predictions.c.time, predictions.c.id).limit(limit)).all()
        failed_rows = connection.execute(failed.order_by(failures.c.time, failures.c.id).limit(limit)).all()
    found = [_outcome(row, rule) for row in rows] + [
        Outcome(row.id, row.time, None, row.latency_ms) for row in failed_rows
    ]
    return sorted(found, key=lambda each: (each.time, each.id))[:limit]


def shadow_outcomes(
    log: Engine,
    task: str,
    version: str,
    since: datetime,
    limit: int,
    rule: LabelRule = ANY_LABEL,
    *,
    unasked: bool = True,
) -> list[tuple[Outcome, Outcome]]:
    """The outcomes of the champion and the shadow for the first `limit` requests that both answered, oldest first."""
    pairs = predictions.join(shadows, shadows.c.request_id == predictions.c.id)
    of_shadow = (
        shadows.c.output.label("shadow"),
        shadows.c.latency_ms.label("shadow_ms"),
        shadows.c.error.label("error"),
    )
    with log.connect() as connection:
        accepted = rule.accepted(connection, task)
        statement = _with_feedback(pairs, predictions.c.output, predictions.c.latency_ms, accepted, unasked=unasked)
        statement = statement.add_columns(*of_shadow).where(
            predictions.c.task == task, shadows.c.version == version, predictions.c.time >= since
        )
        rows = connection.execute(statement.order_by(predictions.c.time, predictions.c.id).limit(limit)).all()
    return [(_outcome(row[:7], rule), _shadow(row, rule)) for row in rows]


def _outcome(row: Sequence[Any], rule: LabelRule) -> Outcome:
    found = Outcome(*row)
    return found if found.label is None else replace(found, label=rule.spelled(found.label))


def _shadow(row: Any, rule: LabelRule) -> Outcome:
    output = None if row.error else row.shadow
    return _outcome((row.id, row.time, output, row.shadow_ms, row.label, None, row.first_feedback), rule)


def _with_feedback(
    source: FromClause, output: Any, latency: Any, accepted: ColumnElement[bool], *, unasked: bool
) -> Any:
    """A SELECT with columns in the order of Outcome's fields."""
    columns = (predictions.c.id, predictions.c.time, output, latency)
    mine = (feedback.c.request_id == predictions.c.id, may_judge(unasked=unasked))
    label, score = _newest(feedback.c.label, *mine, accepted), _newest(feedback.c.score, *mine, is_score())
    return select(
        *columns, label.label("label"), score.label("score"), _first_feedback_id(*mine, or_(accepted, is_score()))
    ).select_from(joined(source))


def _newest(column: ColumnElement[Any], *conditions: ColumnElement[bool]) -> Any:
    """By id, because the clocks of several gateways differ."""
    feedback_rows = select(column).where(*conditions)
    return feedback_rows.order_by(feedback.c.id.desc()).limit(1).scalar_subquery()


def _first_feedback_id(*conditions: ColumnElement[bool]) -> Any:
    number = select(func.min(feedback.c.id)).where(*conditions)
    return number.scalar_subquery().label("first_feedback")
