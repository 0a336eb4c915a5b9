"""How the loop's work grows with a task: with logged requests, and with versions in the registry.

    python benchmarks/scale.py                                  # SQLite: 10 thousand to 1 million requests
    python benchmarks/scale.py --rows 10000 1000000 10000000    # 10 million need about 8 GB of disk
    python benchmarks/scale.py --url postgresql://...           # an empty database, which is filled
    python benchmarks/scale.py --quick                          # small sizes, no output files

Each operation is the product's own function on a real registry (MLflow over SQLite) and a real log: a year of requests
that ends now (see log_queries.py), and for each version a refresh and ten checks. Wall time and CPU time (the database
server's with it) are the median of three rounds. The exponent is the slope of log(CPU time) over log(size) between the two
largest sizes: 0 is flat, 1 is linear. What grows faster than a logarithm says why, and is held to less than linear.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import psutil
import yaml
from log_queries import TASK, empty, fill, require_empty
from shared.many_versions import make_versions
from shared.record import RESULTS, Claim, write
from sqlalchemy import Engine, select, text

from perpetune.curation.running.layout import REFERENCE
from perpetune.explain.gather import gather
from perpetune.explain.status import read_status
from perpetune.loop.curate import export_labelled_traffic
from perpetune.loop.run_context import open_loop_run
from perpetune.loop.watch.check import check
from perpetune.loop.watch.refresh_history import newest_refresh
from perpetune.prediction_log.database import open_log
from perpetune.prediction_log.tables import predictions
from perpetune.prediction_log.writes import add_feedback_rows, record_rows
from perpetune.records import Example, Feedback, Message, Prediction
from perpetune.tracking.runs import close_run, connect
from perpetune.workspace import Workspace, open_workspace

ROOT = Path(__file__).parents[1]
ROWS, VERSIONS = (10_000, 100_000, 1_000_000), (10, 100, 1000)
QUICK_ROWS, QUICK_VERSIONS = (2_000, 20_000), (10, 40)
USUAL_ROWS, USUAL_VERSIONS = 10_000, 100  # while the other size grows
ROUNDS = 3
FLAT = 0.35
"""The largest exponent of what is flat or logarithmic: 2.2 times the work for ten times the size."""
Axis = Literal["requests", "versions"]


@dataclass(frozen=True)
class Task:
    """A task of this size: its workspace, its log, and the number of its champion."""

    workspace: Workspace
    log: Engine
    champion: str


@dataclass(frozen=True)
class Operation:
    """What is timed. `grows` says with what it grows faster than a logarithm, and why; `before` is not timed."""

    name: str
    run: Callable[[Task, int], object]
    before: Callable[[Task, int], object] = lambda task, number: None
    grows: tuple[tuple[Axis, str], ...] = ()

    def reason(self, axis: Axis) -> str | None:
        return dict(self.grows).get(axis)


@dataclass(frozen=True)
class Taken:
    """The median seconds of an operation at a size."""

    operation: str
    axis: Axis
    size: int
    wall: float
    cpu: float


def _log_answers(task: Task, number: int) -> None:
    now = datetime.now(UTC)
    record_rows(
        task.log,
        [
            Prediction(
                id=f"chatcmpl-scale-{number}-{each}",
                time=now,
                task=TASK,
                version=task.champion,
                messages=(Message(role="user", content=f"an input of the benchmark, number {each}"),),
                input=f"an input of the benchmark, number {each}",
                output="good",
                prompt_tokens=60,
                completion_tokens=2,
                latency_ms=10,
                confidence=0.9,
            )
            for each in range(500)
        ],
    )


def _log_labels(task: Task, number: int) -> None:
    """Labels of the champion's newest requests without one."""
    newest = select(predictions.c.id).where(predictions.c.task == TASK, predictions.c.version == task.champion)
    with task.log.connect() as connection:
        ids = (
            connection.execute(newest.order_by(predictions.c.time.desc()).offset(50 * number).limit(50)).scalars().all()
        )
    now = datetime.now(UTC)
    rows = [Feedback(request_id=each, time=now, label="good", propensity=0.5) for each in ids]
    add_feedback_rows(task.log, rows, TASK)


def _check(task: Task, number: int) -> None:
    run = open_loop_run(task.workspace, "watch", "manual", "a benchmark", f"check-{number}")
    check(task.workspace, run, f"check-{number}")
    close_run(run, succeeded=True)


def _refresh_without_training(task: Task, number: int) -> None:
    newest_refresh(TASK)
    export_labelled_traffic(task.workspace)


OPERATIONS = (
    Operation("log 500 answers", _log_answers),
    Operation("log 50 labels", _log_labels),
    Operation(
        "check",
        _check,
        _log_labels,
        (("requests", "reads each label of the champion, and its newest 60,000 requests"),),
    ),
    Operation(
        "status",
        lambda task, number: read_status(task.workspace),
        grows=(("requests", "counts the labels, and the requests of this month"),),
    ),
    Operation("explain", lambda task, number: gather(task.workspace, task.champion)),
    Operation(
        "refresh without training",
        _refresh_without_training,
        grows=(("requests", "curates every label, of which there are a hundredth of the requests"),),
    ),
)


@contextmanager
def task_of(rows: int, versions: int, url: str | None, disk: Path | None) -> Iterator[Task]:
    """A task with so many requests and versions, in a folder that is deleted afterwards."""
    with tempfile.TemporaryDirectory(dir=disk) as name:
        folder = Path(name)
        database = url or f"sqlite:///{folder / 'predictions.db'}"
        os.environ |= {"MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}", "PERPETUNE_DATABASE_URL": database}
        workspace = _workspace(folder)
        connect(os.environ["MLFLOW_TRACKING_URI"])
        champion = make_versions(TASK, folder, versions)
        log = open_log(database)
        try:
            if url:
                require_empty(log, url)
            began = time.monotonic()
            fill(log, rows, versions, datetime.now(UTC) - timedelta(days=365))
            print(f"{rows:,} requests, {versions} versions: made in {time.monotonic() - began:.0f} s", flush=True)
            yield Task(workspace, log, champion)
            if url:
                empty(log)
        finally:
            log.dispose()


def _workspace(folder: Path) -> Workspace:
    settings = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    settings["task"] |= {"name": TASK, "labels": ["good", "bad"]}
    (folder / "params.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    reference = folder / REFERENCE / "reference.jsonl"
    reference.parent.mkdir(parents=True)
    row = Example(input="an input of usual length", output="good", id="r", group="r", source="test")
    reference.write_text(row.model_dump_json() + "\n")
    return open_workspace(folder)


def measure(task: Task, axis: Axis, size: int) -> list[Taken]:
    servers = _servers(task.log)
    return [_taken(operation, task, axis, size, servers) for operation in OPERATIONS]


def _taken(operation: Operation, task: Task, axis: Axis, size: int, servers: psutil.Process | None) -> Taken:
    """The first round, which is not counted, finds nothing cached and admits the labels of a year."""
    walls, cpus = [], []
    for number in range(ROUNDS + 1):
        operation.before(task, 10 + number)
        wall, cpu = time.perf_counter(), _cpu(servers)
        operation.run(task, number)
        walls.append(time.perf_counter() - wall)
        cpus.append(_cpu(servers) - cpu)
    taken = Taken(operation.name, axis, size, statistics.median(walls[1:]), statistics.median(cpus[1:]))
    print(f"  {taken.operation:28}{taken.wall:9.3f} s wall {taken.cpu:9.3f} s CPU", flush=True)
    return taken


def _servers(log: Engine) -> psutil.Process | None:
    """PostgreSQL's postmaster, if it runs on this machine."""
    if log.dialect.name != "postgresql":
        return None
    with log.connect() as connection:
        number = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
    try:
        return psutil.Process(number).parent()
    except psutil.NoSuchProcess:
        return None


def _cpu(servers: psutil.Process | None) -> float:
    """The CPU seconds of this process, and of the database server's that still run."""
    total = time.process_time()
    for each in servers.children() if servers else ():
        try:
            used = each.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += used.user + used.system
    return total


def exponent(taken: Sequence[Taken]) -> float:
    """The slope of log(CPU time) over log(size) between the two largest sizes. Less than 10 ms are taken for 10 ms."""
    before, after = sorted(taken, key=lambda each: each.size)[-2:]
    return math.log(max(after.cpu, 0.01) / max(before.cpu, 0.01)) / math.log(after.size / before.size)


def claims_of(taken: Sequence[Taken], database: str) -> list[Claim]:
    claims = []
    axes: tuple[Axis, ...] = ("requests", "versions")
    for axis in axes:
        for operation in OPERATIONS:
            of_operation = [each for each in taken if (each.operation, each.axis) == (operation.name, axis)]
            reason, found = operation.reason(axis), exponent(of_operation)
            goal = 1.0 if reason else FLAT
            most = max(each.size for each in of_operation)
            why = f" (it {reason})" if reason else ""
            name = f"{database}: exponent of {operation.name} in the number of {axis}, up to {most:,}{why}"
            claims.append(Claim(name, round(found, 3), (round(found, 3), round(found, 3)), goal, found <= goal))
    return claims


def draw(taken: Sequence[Taken], database: str, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(11, 4.5), sharey=True)
    for panel, axis in zip(panels, ("requests", "versions"), strict=True):
        for operation in OPERATIONS:
            points = sorted(
                (each.size, each.cpu) for each in taken if (each.operation, each.axis) == (operation.name, axis)
            )
            panel.plot(*zip(*points, strict=True), marker="o", label=operation.name)
        panel.set(xscale="log", yscale="log", xlabel=f"{axis} ({database})")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("CPU seconds")
    panels[0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description="How the loop's work grows with a task.")
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS)
    parser.add_argument("--versions", type=int, nargs="+", default=VERSIONS)
    parser.add_argument("--url", help="an empty PostgreSQL database, which is filled and emptied for each size")
    parser.add_argument("--folder", type=Path, help="where SQLite files are made; else a temporary folder")
    parser.add_argument("--quick", action="store_true")
    asked = parser.parse_args()
    began, database = time.monotonic(), "PostgreSQL" if asked.url else "SQLite"
    taken: list[Taken] = []
    for rows in QUICK_ROWS if asked.quick else asked.rows:
        with task_of(rows, USUAL_VERSIONS, asked.url, asked.folder) as task:
            taken += measure(task, "requests", rows)
    for versions in QUICK_VERSIONS if asked.quick else asked.versions:
        with task_of(USUAL_ROWS, versions, asked.url, asked.folder) as task:
            taken += measure(task, "versions", versions)
    claims = claims_of(taken, database)
    for claim in claims:
        print(f"{'' if claim.holds else 'FAILS '}{claim.claim}: {claim.value} (at most {claim.goal})")
    if not asked.quick:
        name = f"scale-{database.lower()}"
        write(name, claims, [vars(each) for each in taken], time.monotonic() - began)
        draw(taken, database, RESULTS / f"{name}.png")
    if broken := [claim.claim for claim in claims if not claim.holds]:
        sys.exit("does not hold: " + "; ".join(broken))


if __name__ == "__main__":
    main()
