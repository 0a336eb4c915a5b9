"""The curve of a training run: one point for each step, on disk at once, in MLflow a few seconds later.

A request for each step would hold up a GPU that makes many of them in a second, and metrics that wait in memory
are lost with the process, though the checkpoint that training goes on from comes after them. So each step is
first written to a file beside the run's other files; every few seconds what MLflow lacks is sent in one request.
Training that goes on from a checkpoint repeats the steps since; they are left out, so that each stands there once.
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

SECONDS_BETWEEN_REQUESTS = 5.0
# MLflow's client tries for several seconds before it gives up; training is not to spend its time on that.
SECONDS_WHILE_AWAY = 60.0
METRICS_IN_A_REQUEST = 1000

Record = Callable[[int, Mapping[str, float]], None]


@contextmanager
def drawn(run: Run, journal: Path, metric: str, every_seconds: float = SECONDS_BETWEEN_REQUESTS) -> Iterator[Record]:
    """What takes a step's metrics, in the order of steps, while the block lasts.

    `metric` is one that every step has. A step that the journal or MLflow knows already is left out. Where MLflow
    does not answer, points are kept and tried again; at the end of the block all are sent, or its error raised.
    """
    known = _read(journal)
    sent = last_step(run, metric)
    waiting = [point for point in known if point.step > sent]
    newest = max(sent, *(point.step for point in known), 0)
    due = time.monotonic() + every_seconds

    def send() -> None:
        while waiting:
            some = waiting[: METRICS_IN_A_REQUEST // max(len(point.metrics) for point in waiting)]
            log_points(run, some)
            del waiting[: len(some)]

    def try_to_send() -> float:
        """Returns for how many seconds not to try again."""
        try:
            send()
        except MlflowError as fault:
            logger.warning("%d steps wait until MLflow answers again: %s", len(waiting), fault)
            return max(every_seconds, SECONDS_WHILE_AWAY)
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
    """The points on disk; a line that a power cut broke off is as if it had not been written."""
    points = []
    for line in journal.read_text(encoding="utf-8", errors="replace").splitlines() if journal.is_file() else []:
        try:
            points.append(Point(**json.loads(line)))
        except (ValueError, TypeError):
            continue
    return points
