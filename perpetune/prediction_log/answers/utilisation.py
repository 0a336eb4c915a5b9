"""The ratio of time in which the engine worked, from the times and latencies of the prediction log."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Engine, Select, Table, select

from perpetune.prediction_log.tables import failures, predictions, shadows

MOST_REQUESTS = 200_000  # of the newest, so that a busy log is read in about a second
LEAST = timedelta(days=1)  # a shorter span misses the night


@dataclass(frozen=True)
class Utilisation:
    """The `ratio` of the time in which the engine worked, and its `requests` over `days`, estimated for all requests."""

    ratio: float
    requests: int
    days: float

    @property
    def requests_per_day(self) -> float:
        return self.requests / self.days


def utilisation(log: Engine, task: str, now: datetime, sample_rate: float, days: int) -> Utilisation | None:
    """How busy the engine was from the first request of the last `days` until `now`; None if that is less than a day.

    A request that fails or is answered in the shadow keeps the engine busy too. Overlapping requests count once. If the
    log has a sample of the requests, the rest is added as independent arrivals: of a Poisson process thinned to the ratio
    r, the idle time of all is that of the sample to the power of 1/r (the M/G/infinity queue; Takács 1962, Introduction
    to the Theory of Queues).
    """
    since = now - timedelta(days=days)
    with log.connect() as connection:
        answered = connection.execute(_newest(predictions, task, since)).all()
        if len(answered) == MOST_REQUESTS:
            since = answered[-1].time
        others = [row for table in (failures, shadows) for row in connection.execute(_newest(table, task, since)).all()]
    if not answered or now - answered[-1].time < LEAST:
        return None
    begun, span = answered[-1].time, (now - answered[-1].time).total_seconds()
    rows = [(row.time, row.latency_ms) for row in (*answered, *others) if row.time >= begun]
    starts = np.array([(time - begun).total_seconds() for time, _ in rows])
    ends = starts + np.array([latency for _, latency in rows]) / 1000
    sampled = min(1.0, busy_seconds(starts, np.minimum(ends, span)) / span)
    requests = round(len(answered) / sample_rate)
    return Utilisation(1 - (1 - sampled) ** (1 / sample_rate), requests, span / timedelta(days=1).total_seconds())


def busy_seconds(starts: NDArray[np.float64], ends: NDArray[np.float64]) -> float:
    """The length of the union of the intervals from `starts` to `ends`, both (requests,) in seconds."""
    order = np.argsort(starts, kind="stable")
    starts, latest = starts[order], np.maximum.accumulate(ends[order])
    covered_until = np.concatenate([starts[:1], latest[:-1]])
    return float(np.maximum(0.0, latest - np.maximum(starts, covered_until)).sum())


def _newest(table: Table, task: str, since: datetime) -> Select[tuple[datetime, float]]:
    of_task = (table.c.task == task) & (table.c.time >= since)
    return select(table.c.time, table.c.latency_ms).where(of_task).order_by(table.c.time.desc()).limit(MOST_REQUESTS)
