"""Outcomes of a trial's requests, read from the prediction log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Engine, FromClause, func, or_, select

from perpetune.curation.text import fingerprint, normalised
from perpetune.prediction_log.answers.cut_off import is_whole
from perpetune.prediction_log.labels.provenance import joined, may_judge
from perpetune.prediction_log.labels.rule import ANY_LABEL, LabelRule, is_score
from perpetune.prediction_log.tables import failures, feedback, label_requests, predictions, shadows
from perpetune.records import Route


@dataclass(frozen=True)
class Outcome:
    """One request: its answer (None if it failed), and its newest label and score.

    `first_feedback` is the id of its first label or score, which came at `labelled`. `asked` is when and `why` the reason for
    which its label was asked for; None if it was not. `propensity` is that of a client's own lot. `group` is its user or session.
    """

    id: str
    time: datetime
    output: str | None
    latency_ms: float
    label: str | None = None
    score: float | None = None
    first_feedback: int | None = None
    labelled: datetime | None = None
    asked: datetime | None = None
    why: str | None = None
    propensity: float | None = None
    group: str | None = None
    input: str = ""

    @property
    def cluster(self) -> str:
        """The user or session; if it is unknown the input up to case and space, or the request if it failed."""
        return self.group or (fingerprint(normalised(self.input)) if self.input else self.id)

    @property
    def came_unasked(self) -> bool:
        """Whether somebody said something of it, and neither a label request nor a lot of the client had chosen it."""
        return self.first_feedback is not None and self.asked is None and self.propensity is None

    def without_feedback(self) -> Outcome:
        """The same request as if there were no feedback on it."""
        return replace(self, label=None, score=None, first_feedback=None, labelled=None)


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
    every_label: bool = False,
    answered_by: str | None = None,
) -> list[tuple[Outcome, Outcome]]:
    """The outcomes of what users got and of the shadow, for the first `limit` requests that `version` answered unseen.

    Oldest first. `answered_by` is the version whose answers users got; None for any. Labels are on the request, so that both
    have them. With `every_label` those count, too, that judge no single version.
    """
    pairs = predictions.join(shadows, shadows.c.request_id == predictions.c.id)
    of_shadow = (
        shadows.c.output.label("shadow"),
        shadows.c.latency_ms.label("shadow_ms"),
        shadows.c.error.label("error"),
    )
    mine = [predictions.c.task == task, shadows.c.version == version, predictions.c.time >= since, is_whole()]
    mine += [predictions.c.version == answered_by] if answered_by else []
    with log.connect() as connection:
        accepted = rule.accepted(connection, task)
        statement = _with_feedback(
            pairs,
            predictions.c.output,
            predictions.c.latency_ms,
            accepted,
            unasked=unasked,
            every_label=every_label,
        )
        statement = statement.add_columns(*of_shadow).where(*mine)
        rows = connection.execute(statement.order_by(predictions.c.time, predictions.c.id).limit(limit)).all()
    return [(_outcome(row[:-3], rule), _shadow(row, rule)) for row in rows]


def _outcome(row: Sequence[Any], rule: LabelRule) -> Outcome:
    found = Outcome(*row)
    return found if found.label is None else replace(found, label=rule.spelled(found.label))


def _shadow(row: Any, rule: LabelRule) -> Outcome:
    output = None if row.error else row.shadow
    return replace(_outcome(row[:-3], rule), output=output, latency_ms=row.shadow_ms, score=None)


def _with_feedback(
    source: FromClause,
    output: Any,
    latency: Any,
    accepted: ColumnElement[bool],
    *,
    unasked: bool,
    every_label: bool = False,
) -> Any:
    """A SELECT with columns in the order of Outcome's fields."""
    columns = (predictions.c.id, predictions.c.time, output, latency)
    mine = [feedback.c.request_id == predictions.c.id, *([] if every_label else [may_judge(unasked=unasked)])]
    label, score = _newest(feedback.c.label, *mine, accepted), _newest(feedback.c.score, *mine, is_score())
    said = or_(accepted, is_score())
    by_client = _newest(feedback.c.propensity, *mine, feedback.c.propensity.is_not(None))
    return select(
        *columns,
        label.label("label"),
        score.label("score"),
        _first(func.min(feedback.c.id), *mine, said).label("first_feedback"),
        _first(func.min(feedback.c.time), *mine, said).label("labelled"),
        label_requests.c.time.label("asked"),
        label_requests.c.why,
        by_client.label("by_client"),
        predictions.c.group,
        predictions.c.input,
    ).select_from(joined(source))


def _newest(column: ColumnElement[Any], *conditions: ColumnElement[bool]) -> Any:
    """By id, because the clocks of several gateways differ."""
    feedback_rows = select(column).where(*conditions)
    return feedback_rows.order_by(feedback.c.id.desc()).limit(1).scalar_subquery()


def _first(column: Any, *conditions: ColumnElement[bool]) -> Any:
    return select(column).where(*conditions).scalar_subquery()
