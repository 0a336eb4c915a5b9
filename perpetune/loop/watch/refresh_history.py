"""Earlier refreshes of the task: when they ran, whether they helped, and what they cost."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from perpetune.loop.curate import LABELS, LABELS_SINCE_FALL
from perpetune.loop.run_context import DEVICE_HOURS, TRIGGER
from perpetune.policy.retraining import LONGEST_COOLDOWN, PastRefresh, labels_of_change
from perpetune.tracking.registry import Version
from perpetune.tracking.runs import EndedRun, ended_runs, newest_finished, read_run, unfinished_runs


@dataclass(frozen=True)
class Refreshes:
    """Earlier refreshes. `minutes_since` the last one ended; None if there was none within the longest cooldown.

    `failures` counts those triggered by decay since the champion was made; `device_hours` is the sum of the last 30
    days. `labels_of_change` is that of `perpetune.policy.retraining`. `labels` is the number of production labels at the
    last refresh that succeeded; None if there is none.
    """

    minutes_since: float | None
    failures: int
    device_hours: float
    labels: int | None = None
    labels_of_change: int | None = None


def refreshes_before(champion: Version, cooldown_minutes: float) -> Refreshes:
    """Refreshes of the champion's task that finished or failed. A killed one is resumed and does not count."""
    now, made = time.time(), read_run(champion.run_id).started.timestamp()
    longest = now - 60 * max(LONGEST_COOLDOWN, cooldown_minutes)
    runs = ended_runs(champion.task, "refresh", min(made, longest))
    failures = [run for run in runs if run.began > made and run.tags.get(TRIGGER) == "decay"]
    with_labels = [run for run in runs if run.succeeded and LABELS in run.metrics]
    return Refreshes(
        minutes_since=(now - max(run.ended for run in runs)) / 60 if runs else None,
        failures=len(failures),
        device_hours=_device_hours([run for run in runs if run.began >= now - 60 * LONGEST_COOLDOWN]),
        labels=int(with_labels[-1].metrics[LABELS]) if with_labels else None,
        labels_of_change=labels_of_change([_past(run) for run in with_labels]),
    )


def _past(run: EndedRun) -> PastRefresh:
    since_fall = run.metrics.get(LABELS_SINCE_FALL)
    return PastRefresh(
        run.tags.get(TRIGGER, ""), int(run.metrics[LABELS]), None if since_fall is None else int(since_fall)
    )


def device_hours_since(task: str, since: float) -> float:
    """The device hours of the refreshes that began at or after `since` (Unix seconds) and ended."""
    return _device_hours(ended_runs(task, "refresh", since))


def newest_refresh(task: str) -> float | None:
    """Start time (Unix seconds) of the newest refresh that succeeded or is running; None if there is none."""
    finished = newest_finished(task, "refresh")
    succeeded = [finished.began] if finished else []
    running = [each.run.id for each in unfinished_runs(task, "refresh") if each.running]
    return max([*succeeded, *(read_run(run_id).started.timestamp() for run_id in running)], default=None)


def _device_hours(runs: Sequence[EndedRun]) -> float:
    """The sum of device hours; a run that failed before logging them counts with its whole duration on one device."""
    hours = [run.metrics.get(DEVICE_HOURS, 0.0 if run.succeeded else (run.ended - run.began) / 3600) for run in runs]
    return sum(hours)
