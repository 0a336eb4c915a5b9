"""Rounds: an operation, one fault or two meanwhile, and what must hold afterwards."""

from __future__ import annotations

import itertools
import math
import random
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from chaos import faults, invariants
from chaos.faults import Fault
from chaos.load import Load
from chaos.operations import Operations
from chaos.report import Report, RoundResult
from chaos.world import GATEWAYS, World, wait_for

WITHIN_SECONDS = 15.0  # of the beginning of a round, in which faults begin
Plan = tuple[str, Sequence[Fault]]  # an operation, and what breaks meanwhile
SHORT: tuple[Plan, ...] = (
    ("watch", (Fault("kill", "gateway-1", 1, 3), Fault("stop", "mlflow", 2, 4), Fault("drop", "engine-1", 3, 4))),
    ("watch", (Fault("kill", "postgres", 1, 3), Fault("kill", "prefect", 2, 3), Fault("stall", "gateway-2", 3, 4))),
)
_HEALTHY_SECONDS = 300.0


def run_chaos(world: World, rounds: int, seed: int, minutes: float | None = None) -> Report:
    """Draw operations and faults; every round has its own random numbers, so that a round can be found again.

    No round begins after `minutes`.
    """
    until = math.inf if minutes is None else time.monotonic() + 60 * minutes
    report = Report(seed, faults.possible(world))
    operations = Operations(world, random.Random(seed))
    first_refresh(operations)

    def plan(number: int) -> Plan:
        operations.draw = random.Random(f"{seed} {number}")
        planned = faults.draw_faults(operations.draw, report.targets, WITHIN_SECONDS)
        return operations.choose(), planned

    numbers = itertools.takewhile(lambda _: time.monotonic() < until, range(1, rounds + 1))
    return _run(world, operations, report, map(plan, numbers), ("watch", "refresh"))


def run_short(world: World) -> Report:
    """A few fixed faults of several kinds, all within two checks."""
    report = Report(0, faults.possible(world))
    return _run(world, Operations(world, random.Random(0)), report, SHORT, ("watch",))


def _run(world: World, operations: Operations, report: Report, plans: Iterable[Plan], last: Sequence[str]) -> Report:
    began = time.monotonic()
    load = Load([world.url(name) for name in GATEWAYS])
    load.start(report.seed)
    try:
        for number, (name, planned) in enumerate(plans, start=1):
            report.add(run_round(world, load, operations, number, name, planned))
    finally:
        load.stop()
    finish(world, load, operations, report, last)
    report.seconds = time.monotonic() - began
    return report


def first_refresh(operations: Operations) -> None:
    """Two more versions to promote and roll back, before anything breaks."""
    ended = operations.run("refresh", lambda: False)
    assert ended == "completed", f"the first refresh ended as {ended}"
    assert operations.run("promote", lambda: False) == "done"


def run_round(
    world: World, load: Load, operations: Operations, number: int, name: str, planned: Sequence[Fault]
) -> RoundResult:
    began = time.monotonic()
    before = len(load.answered), len(load.labels), len(load.failed)
    problems: list[str] = []
    over = threading.Event()
    ended: list[str] = []
    breaking = [threading.Thread(target=_noting, args=(problems, partial(faults.run, world, each))) for each in planned]
    operating = threading.Thread(
        target=_noting, args=(problems, lambda: ended.append(operations.run(name, over.is_set)))
    )
    for thread in (operating, *breaking):
        thread.start()
    for thread in breaking:
        thread.join()
    _noting(problems, lambda: wait_for(world.healthy, _HEALTHY_SECONDS, "all services to be healthy"))
    over.set()
    operating.join()
    answers, labels = invariants.lost(world, load)
    for check in invariants.AFTER_A_ROUND:
        _noting(problems, partial(_check, problems, check, world))
    return RoundResult(
        number=number,
        faults=tuple(map(str, planned)),
        operation=name,
        ended=ended[0] if ended else "no end",
        requests=len(load.answered) + len(load.failed) - before[0] - before[2],
        failed=len(load.failed) - before[2],
        acknowledged=len(load.labels) - before[1],
        lost=len(answers) + len(labels),
        seconds=time.monotonic() - began,
        problems=tuple(problems),
    )


def finish(world: World, load: Load, operations: Operations, report: Report, last: Sequence[str]) -> None:
    """What must hold in the end, after the `last` operations, which nothing disturbs."""
    problems: list[str] = []
    _noting(problems, lambda: problems.extend(invariants.none_running(world)))
    for name in last:
        ended = operations.run(name, lambda: False)
        if ended != "completed":
            problems.append(f"the {name} after all faults ended as {ended}")
    answers, labels = invariants.lost(world, load)
    report.lost_answers, report.lost_labels = len(answers), len(labels)
    for check in invariants.IN_THE_END:
        _noting(problems, partial(_check, problems, check, world))
    report.failed_while_served = invariants.failed_while_served(world, load)
    report.answered, report.labels = len(load.answered), len(load.labels)
    report.failed, report.retried, report.unacknowledged = len(load.failed), load.retried, load.unacknowledged
    report.restarts = {name: each.restarts for name, each in world.processes.items() if each.restarts}
    report.problems = tuple(dict.fromkeys(problems))


def _check(problems: list[str], check: Callable[[World], list[str]], world: World) -> None:
    problems.extend(check(world))


def _noting(problems: list[str], work: Callable[[], object]) -> None:
    """A round goes on if a part of it fails, and the table says so."""
    try:
        work()
    except Exception as fault:  # whatever a broken service raises
        problems.append(f"{type(fault).__name__}: {str(fault)[:300]}")
