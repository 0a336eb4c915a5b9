"""A flow run that shows no new sign of life is ended, with its process; others are left alone."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import UUID, uuid4

import httpx
import pytest

from perpetune.flows.dead_runs import LOOKS, STEP_SECONDS, ending_dead_runs, looks_for

SLEEP = (sys.executable, "-c", "import time; time.sleep(60)")


@contextmanager
def sleeping(run: UUID | None) -> Iterator[subprocess.Popen[bytes]]:
    """A child of this process, as a worker starts one for a flow run."""
    marked = {} if run is None else {"PREFECT__FLOW_RUN_ID": str(run)}
    process = subprocess.Popen(SLEEP, env={**os.environ, **marked})
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@dataclass
class Runs:
    """Prefect's answers: `waiting` shows the same sign at each look, `living` a new one."""

    waiting: set[UUID]
    living: set[UUID] = field(default_factory=set)
    answers: bool = True
    looks: int = 0
    crashed: list[UUID] = field(default_factory=list)

    def signs(self) -> dict[UUID, Hashable]:
        self.looks += 1
        if not self.answers:
            raise httpx.ConnectError("refused")
        return dict.fromkeys(self.waiting, "pending") | dict.fromkeys(self.living, self.looks)

    def crash(self, run: UUID) -> None:
        self.crashed.append(run)
        self.waiting.discard(run)


def test_a_process_whose_run_does_not_begin_is_killed_and_others_are_not() -> None:
    waits, begun = uuid4(), uuid4()
    runs = Runs({waits})
    with sleeping(waits) as waiting, sleeping(begun) as running, sleeping(None) as other:
        with ending_dead_runs(runs, looks=2, step=0.1):
            assert waiting.wait(30) == -9
            runs.waiting.clear()  # the worker has reported it
        assert runs.looks > 2
        assert not runs.crashed, "the worker reports it"
        assert running.poll() is None
        assert other.poll() is None, "a process that is no flow run"


def test_a_run_without_a_process_is_crashed() -> None:
    """Its process ended before Prefect could write that it begins."""
    lost = uuid4()
    runs = Runs({lost})
    with ending_dead_runs(runs, looks=2, step=0.05):
        deadline = time.monotonic() + 30
        while not runs.crashed and time.monotonic() < deadline:
            time.sleep(0.05)
    assert runs.crashed == [lost]


def test_a_run_has_time_to_begin() -> None:
    run = uuid4()
    runs = Runs({run})
    with sleeping(run) as process, ending_dead_runs(runs, looks=10_000, step=0.05):
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)
    assert not runs.crashed


def test_a_server_that_does_not_answer_ends_no_run_and_is_asked_again() -> None:
    run = uuid4()
    runs = Runs({run}, answers=False)
    with sleeping(run) as process, ending_dead_runs(runs, looks=0, step=0.05):
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)
    assert runs.looks > 1
    assert not runs.crashed


def test_a_run_with_a_new_sign_of_life_at_each_look_goes_on() -> None:
    lives, silent = uuid4(), uuid4()
    runs = Runs({silent}, {lives})
    with sleeping(lives) as process, ending_dead_runs(runs, looks=3, step=0.05):
        deadline = time.monotonic() + 30
        while not runs.crashed and time.monotonic() < deadline:
            time.sleep(0.05)
        looks = runs.looks
        while runs.looks < looks + 5:
            time.sleep(0.05)
        assert process.poll() is None
    assert runs.crashed == [silent]


def test_rare_heartbeats_are_waited_for() -> None:
    assert looks_for(0) == looks_for(60) == LOOKS
    assert looks_for(600) * STEP_SECONDS > 3 * 600
