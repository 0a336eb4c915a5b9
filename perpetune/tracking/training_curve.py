"""The training curve of a run: a point for each step, written to disk at once and to MLflow a few seconds later.

A request for each step would slow down a fast GPU, and metrics buffered in memory would be lost with the process. So each
step is first appended to a file in the run's folder, and every few seconds the new points are sent in one request. A
training resumed from a checkpoint repeats some steps; these are skipped, so that each step is logged once.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from perpetune.tracking.runs import MlflowError, Point, Run, last_step, log_points

logger = logging.getLogger(__name__)

SEND_SECONDS = 5.0
# After an error, because MLflow's client retries for several seconds, which would delay the training.
RETRY_SECONDS = 60.0
MAX_METRICS = 1000  # of a request

Record = Callable[[int, Mapping[str, float]], None]


@contextmanager
def training_curve(run: Run, journal: Path, metric: str, every_seconds: float = SEND_SECONDS) -> Iterator[Record]:
    """Yields a function that records the metrics of a step, in the order of steps.

    `metric` is one that every step has. Steps that the journal or MLflow already has are skipped. If MLflow does not
    answer, points are kept and sent later; at the end of the block all are sent, or MlflowError is raised.
    """
    known = _read(journal)
    sent = last_step(run, metric)
    waiting = [point for point in known if point.step > sent]
    newest = max(sent, *(point.step for point in known), 0)
    due = time.monotonic() + every_seconds

    def send() -> None:
        while waiting:
            some = waiting[: MAX_METRICS // max(len(point.metrics) for point in waiting)]
            log_points(run, some)
            del waiting[: len(some)]

    def try_to_send() -> float:
        """Send, and return the seconds until the next attempt."""
        try:
            send()
        except MlflowError as fault:
            logger.warning("MLflow does not answer, %d steps will be sent later: %s", len(waiting), fault)
            return max(every_seconds, RETRY_SECONDS)
        return every_seconds

    with journal.open("a", encoding="utf-8") as file:

        def record(step: int, metrics: Mapping[str, float]) -> None:
            nonlocal due
            if step <= newest:
                return
            point = Point(step, time.time_ns() // 1_000_000, metrics)
            file.write(f"\n{json.dumps(vars(point))}")
            file.flush()
            waiting.append(point)
            if time.monotonic() >= due:
                due = time.monotonic() + try_to_send()

        try:
            yield record
        except BaseException:
            try_to_send()
            raise
    send()


def _read(journal: Path) -> list[Point]:
    """The points on disk, without incomplete lines."""
    points = []
    for line in journal.read_text(encoding="utf-8", errors="replace").splitlines() if journal.is_file() else []:
        try:
            points.append(Point(**json.loads(line)))
        except (ValueError, TypeError):
            continue
    return points
