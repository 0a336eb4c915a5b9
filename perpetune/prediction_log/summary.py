"""The counts of `perpetune status`: quick in a log of millions of requests, because labels are fewer than requests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, Engine, case, exists, func, select

from perpetune.prediction_log.label_counts import NAMES
from perpetune.prediction_log.label_rule import ANY_LABEL, LabelRule, from_labels
from perpetune.prediction_log.tables import feedback, label_requests, predictions


@dataclass(frozen=True)
class LogSummary:
    """`labels` counts labelled requests by how they were chosen; `ignored` those with labels that the rule refuses only.

    `open_requests` are the labels that are wanted, `urgent` those that a suspected decay waits for. `first` is the time of
    the first request at or after the time that was asked for; `requests_since` counts from there.
    """

    predictions: int = 0
    newest: datetime | None = None
    labels: Mapping[str, int] = field(default_factory=dict)
    ignored: int = 0
    open_requests: int = 0
    urgent: int = 0
    first: datetime | None = None
    requests_since: int = 0

    @property
    def labelled(self) -> int:
        return sum(self.labels.values())


def log_summary(log: Engine, task: str, since: datetime, rule: LabelRule = ANY_LABEL) -> LogSummary:
    """Requests, labels and label requests of a task."""
    of_task = predictions.c.task == task
    recent = select(func.min(predictions.c.time), func.count()).where(of_task, predictions.c.time >= since)
    with log.connect() as connection:
        accepted = rule.accepted(connection, task)
        labels, ignored = _labels(connection, task, accepted)
        open_requests, urgent = _open(connection, task, accepted)
        first, requests_since = connection.execute(recent).one()
        return LogSummary(
            predictions=connection.execute(select(func.count()).where(of_task)).scalar_one(),
            newest=connection.execute(select(func.max(predictions.c.time)).where(of_task)).scalar_one(),
            labels=labels,
            ignored=ignored,
            open_requests=open_requests,
            urgent=urgent,
            first=first,
            requests_since=requests_since,
        )


def _labels(connection: Connection, task: str, accepted: ColumnElement[bool]) -> tuple[dict[str, int], int]:
    """Labelled requests by how they were chosen, and how many have only labels that count for nothing."""
    labelled = (
        select(
            feedback.c.request_id,
            func.max(case((accepted, 1), else_=0)).label("counts"),
            func.max(case((feedback.c.propensity.is_not(None), 1), else_=0)).label("by_client"),
        )
        .where(feedback.c.label.is_not(None))
        .group_by(feedback.c.request_id)
        .subquery()
    )
    with_task = labelled.join(predictions, predictions.c.id == labelled.c.request_id)
    with_reason = with_task.join(label_requests, label_requests.c.request_id == labelled.c.request_id, isouter=True)
    columns = (labelled.c.counts, label_requests.c.why, labelled.c.by_client)
    rows = select(*columns, func.count()).select_from(with_reason).where(from_labels(task)).group_by(*columns)
    counts: Counter[str] = Counter()
    ignored = 0
    for counted, why, by_client, count in connection.execute(rows):
        if counted:
            counts[why or ("lot" if by_client else "unasked")] += count
        else:
            ignored += count
    return {name: counts[name] for name in NAMES if counts[name]}, ignored


def _open(connection: Connection, task: str, accepted: ColumnElement[bool]) -> tuple[int, int]:
    """The label requests without a label, and how many of them are urgent."""
    labelled = exists().where(feedback.c.request_id == label_requests.c.request_id, accepted)
    urgent = func.coalesce(func.sum(case((label_requests.c.urgent, 1), else_=0)), 0)
    with_task = label_requests.join(predictions, predictions.c.id == label_requests.c.request_id)
    found = connection.execute(
        select(func.count(), urgent).select_from(with_task).where(from_labels(task), ~labelled)
    ).one()
    return int(found[0]), int(found[1])


def worked_seconds(log: Engine, task: str, since: datetime) -> float:
    """The sum of the latencies of the task's answers since a time, in seconds."""
    of_task = (predictions.c.task == task) & (predictions.c.time >= since)
    with log.connect() as connection:
        total = connection.execute(select(func.sum(predictions.c.latency_ms)).where(of_task)).scalar_one()
    return float(total or 0.0) / 1000
