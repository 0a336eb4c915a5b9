"""Stored requests without labels that champion and challenger are compared on: one of each user or input."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from perpetune.curation.rows.dedup_key import DedupKey, input_key
from perpetune.policy.promotion.traffic_comparison import MOST_TRAFFIC
from perpetune.prediction_log.database import open_log
from perpetune.prediction_log.queries import recent_predictions
from perpetune.records import Example, Prediction
from perpetune.workspace import Workspace

NEWEST = 50_000  # requests read from the log


@dataclass(frozen=True)
class Pool:
    """Requests of recent and of earlier traffic, each in an order drawn by lot."""

    recent: tuple[Prediction, ...]
    earlier: tuple[Prediction, ...]


def stored_pool(workspace: Workspace, learned: Iterable[Example], since: datetime | None) -> Pool:
    """Requests that nobody has labelled and whose inputs are not among the `learned` rows.

    Recent are those from `since` on, the age of the recent holdout; without one, the newer half.
    """
    log, params = open_log(workspace.settings.prediction_log), workspace.params
    try:
        stored = recent_predictions(log, params.task.name, limit=NEWEST)
    finally:
        log.dispose()
    most = params.promote.traffic_rows
    known = {input_key(row) for row in learned}
    return divided(stored, known, since, MOST_TRAFFIC * most, most, params.split.seed)


def divided(
    stored: Sequence[Prediction],
    learned: Collection[DedupKey],
    since: datetime | None,
    recent_rows: int,
    earlier_rows: int,
    seed: int,
) -> Pool:
    """At most so many requests of each time, of which no two are of one user or have one input."""
    free = [row for row in stored if row.label is None and _key(row) not in learned]
    if since is None and free:
        since = free[len(free) // 2].time
    recent = [row for row in free if since is not None and row.time >= since]
    earlier = [row for row in free if since is not None and row.time < since]
    return Pool(_drawn(recent, recent_rows, seed), _drawn(earlier, earlier_rows, seed))


def _drawn(rows: Sequence[Prediction], most: int, seed: int) -> tuple[Prediction, ...]:
    """One request of each group and of each input, by lot."""
    by_lot = sorted(rows, key=lambda row: hashlib.sha256(f"{seed} compare {row.id}".encode()).digest())
    groups: set[str] = set()
    inputs: set[DedupKey] = set()
    drawn: list[Prediction] = []
    for row in by_lot:
        key = _key(row)
        if len(drawn) < most and key not in inputs and (row.group is None or row.group not in groups):
            drawn.append(row)
            inputs.add(key)
            groups |= {row.group} if row.group else set()
    return tuple(drawn)


def _key(row: Prediction) -> DedupKey:
    return input_key(as_example(row))


def as_example(row: Prediction) -> Example:
    """The request as a row to answer; its output is not known."""
    return Example(input=row.input, output="", id=row.id, group=row.group or row.id, source="", messages=row.messages)
