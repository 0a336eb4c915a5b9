"""Rounds: an operation, one fault or two meanwhile, and what must hold afterwards."""

from __future__ import annotations

import itertools
import math
import random
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

from chaos import faults, invariants, postgres, results
from chaos.faults import Fault
from chaos.load import Load
from chaos.operations import Operations
from chaos.report import HEADING, LastChecks, Report, RoundResult
from chaos.world import GATEWAYS, World, wait_for

WITHIN_SECONDS = 10.0  # of the beginning of a round, in which faults begin
Plan = tuple[str, Sequence[Fault]]  # an operation, and what breaks meanwhile
SHORT: tuple[Plan, ...] = (
    ("watch", (Fault("kill", "gateway-1", 1, 3), Fault("stop", "mlflow", 2, 4), Fault("drop", "engine-1", 3, 4))),
    ("watch", (Fault("kill", "postgres", 1, 3), Fault("kill", "prefect", 2, 3), Fault("stall", "gateway-2", 3, 4))),
)
_HEALTHY_SECONDS = 300.0


def run_chaos(
    world: World, rounds: int, seed: int, *, first: int = 1, minutes: float | None = None, folder: Path | None = None
) -> Report:
    """Draw operations and faults; every round has its own random numbers, so that a round can be found again.

    No round begins after `minutes`. After each, `chaos.json` in the folder says what was seen; what an earlier run of the
    seed saw of the rounds before `first` stays in it.
    """
    until = math.inf if minutes is None else time.monotonic() + 60 * minutes
    report = _report(world, seed)
    if folder is not None:
        report.rounds += results.earlier(folder, seed, first)
    operations = Operations(world, random.Random(seed))
    first_refresh(operations)

    def plan(number: int) -> tuple[int, Plan]:
        operations.draw = random.Random(f"{seed} {number}")
        planned = faults.draw_faults(operations.draw, report.targets, WITHIN_SECONDS)
        return number, (operations.choose(), planned)

    numbers = itertools.takewhile(lambda _: time.monotonic() < until, range(first, rounds + 1))
    return _run(world, operations, report, map(plan, numbers), ("watch", "refresh"), folder)


def run_short(world: World) -> Report:
    """A few fixed faults of several kinds, all within two checks."""
    operations = Operations(world, random.Random(0))
    return _run(world, operations, _report(world, 0), enumerate(SHORT, start=1), ("watch",), None)


def _report(world: World, seed: int) -> Report:
    return Report(seed, faults.possible(world), postgres.version())


def _run(
    world: World,
    operations: Operations,
    report: Report,
    plans: Iterable[tuple[int, Plan]],
    last: Sequence[str],
    folder: Path | None,
) -> Report:
    print(f"seed {report.seed}\n{HEADING}", flush=True)
    load = Load([world.url(name) for name in GATEWAYS])
    load.start(report.seed)
    try:
        for number, (name, planned) in plans:
            report.add(run_round(world, load, operations, number, name, planned))
            _keep(world, report, folder)
    finally:
        load.stop()
    report.last = last_checks(world, load, operations, last)
    _keep(world, report, folder)
    return report


def _keep(world: World, report: Report, folder: Path | None) -> None:
    report.restarts = {name: each.restarts for name, each in world.processes.items() if each.restarts}
    if folder is not None:
        results.write(report, folder)


def first_refresh(operations: Operations) -> None:
    """Two more versions to promote and roll back, before anything breaks."""
    ended = operations.run("refresh", lambda: False)
    assert ended == "completed", f"the first refresh ended as {ended}"
    assert operations.run("promote", lambda: False) == "done"


def run_round(
    world: World, load: Load, operations: Operations, number: int, name: str, planned: Sequence[Fault]
) -> RoundResult:
    began, before = time.monotonic(), load.seen
    problems: list[str] = []
    over = threading.Event()
    ended: list[str] = []
    breaking = [
        threading.Thread(target=_noting, args=(problems, partial(faults.run, world, each)), daemon=True)
        for each in planned
    ]
    operating = threading.Thread(
        target=_noting,
        args=(problems, lambda: ended.append(operations.run(name, over.is_set))),
        daemon=True,
    )
    for thread in (operating, *breaking):
        thread.start()
    for thread in breaking:
        thread.join()
    _noting(problems, lambda: wait_for(world.healthy, _HEALTHY_SECONDS, "all services to be healthy"))
    healthy = time.monotonic()
    over.set()
    operating.join()
    lost_before = len(load.lost_answers), len(load.lost_labels)
    _noting(problems, lambda: invariants.note_lost(world, load))
    for check in invariants.AFTER_A_ROUND:
        _noting(problems, partial(_check, problems, check, world))
    after = load.seen
    failed = load.failed[before.failed : after.failed]
    return RoundResult(
        number=number,
        faults=tuple(map(str, planned)),
        operation=name,
        ended=ended[0] if ended else "no end",
        answered=after.answered - before.answered,
        failed=len(failed),
        failed_while_served=tuple(invariants.failed_while_served(world, failed)),
        retried=after.retried - before.retried,
        acknowledged=after.labels - before.labels,
        unacknowledged=after.unacknowledged - before.unacknowledged,
        lost_answers=len(load.lost_answers) - lost_before[0],
        lost_labels=len(load.lost_labels) - lost_before[1],
        healthy_after=round(healthy - began, 1),
        seconds=round(time.monotonic() - began, 1),
        problems=tuple(problems),
    )


def last_checks(world: World, load: Load, operations: Operations, last: Sequence[str]) -> LastChecks:
    """What must hold in the end, after the `last` operations, which nothing disturbs."""
    began = time.monotonic()
    wrong: dict[str, list[str]] = {"killed flow runs are ended": _wrong(invariants.none_running, world)}
    for name in last:
        ended = _run_alone(world, operations, name)
        wrong[f"a {name} completes"] = [] if ended == "completed" else [f"it ended as {ended}"]
    wrong["nothing acknowledged is lost"] = _wrong(lambda world: invariants.all_lost(world, load), world)
    wrong |= {name: _wrong(check, world) for name, check in invariants.IN_THE_END.items()}
    return LastChecks(wrong, round(time.monotonic() - began, 1))


def _run_alone(world: World, operations: Operations, name: str) -> str:
    """Once more after another run of the deployment, which a check may have started, and which cancels this one."""
    ended = operations.run(name, lambda: False)
    if ended != "cancelled":
        return ended
    invariants.none_running(world)
    return operations.run(name, lambda: False)


def _wrong(check: Callable[[World], list[str]], world: World) -> list[str]:
    problems: list[str] = []
    _noting(problems, partial(_check, problems, check, world))
    return problems


def _check(problems: list[str], check: Callable[[World], list[str]], world: World) -> None:
    problems.extend(check(world))


def _noting(problems: list[str], work: Callable[[], object]) -> None:
    """A round goes on if a part of it fails, and the table says so."""
    try:
        work()
    except Exception as fault:  # whatever a broken service raises
        problems.append(f"{type(fault).__name__}: {str(fault)[:300]}")
