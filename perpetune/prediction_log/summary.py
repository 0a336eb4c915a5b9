"""The counts of `perpetune status`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import Engine, func, select

from perpetune.prediction_log.labels.counts import label_counts
from perpetune.prediction_log.labels.requests import count_open
from perpetune.prediction_log.labels.rule import ANY_LABEL, LabelRule
from perpetune.prediction_log.queries import counts
from perpetune.prediction_log.tables import predictions


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
    found, of_task = counts(log, task, rule), predictions.c.task == task
    recent = select(func.min(predictions.c.time), func.count()).where(of_task, predictions.c.time >= since)
    with log.connect() as connection:
        first, requests_since = connection.execute(recent).one()
    return LogSummary(
        predictions=found.predictions,
        newest=found.newest,
        labels=label_counts(log, task, rule),
        ignored=found.ignored,
        open_requests=count_open(log, task, rule),
        urgent=count_open(log, task, rule, urgent=True),
        first=first,
        requests_since=requests_since,
    )


def worked_seconds(log: Engine, task: str, since: datetime) -> float:
    """The sum of the latencies of the task's answers since a time, in seconds."""
    of_task = (predictions.c.task == task) & (predictions.c.time >= since)
    with log.connect() as connection:
        total = connection.execute(select(func.sum(predictions.c.latency_ms)).where(of_task)).scalar_one()
    return float(total or 0.0) / 1000
