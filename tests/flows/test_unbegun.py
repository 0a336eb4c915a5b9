"""A flow run whose process lives and never begins is ended; others are left alone."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import UUID, uuid4

import httpx
import pytest

from perpetune.flows.unbegun import ending_unbegun_runs

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
    """Prefect's answers."""

    waiting: set[UUID]
    answers: bool = True
    looks: int = 0
    crashed: list[UUID] = field(default_factory=list)

    def pending(self) -> set[UUID]:
        self.looks += 1
        if not self.answers:
            raise httpx.ConnectError("refused")
        return set(self.waiting)

    def crash(self, run: UUID) -> None:
        self.crashed.append(run)
        self.waiting.discard(run)


def test_a_process_whose_run_does_not_begin_is_killed_and_others_are_not() -> None:
    waits, begun = uuid4(), uuid4()
    runs = Runs({waits})
    with sleeping(waits) as waiting, sleeping(begun) as running, sleeping(None) as other:
        with ending_unbegun_runs(runs, looks=2, step=0.1):
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
    with ending_unbegun_runs(runs, looks=2, step=0.05):
        deadline = time.monotonic() + 30
        while not runs.crashed and time.monotonic() < deadline:
            time.sleep(0.05)
    assert runs.crashed == [lost]


def test_a_run_has_time_to_begin() -> None:
    run = uuid4()
    runs = Runs({run})
    with sleeping(run) as process, ending_unbegun_runs(runs, looks=10_000, step=0.05):
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)
    assert not runs.crashed


def test_a_server_that_does_not_answer_ends_no_run_and_is_asked_again() -> None:
    run = uuid4()
    runs = Runs({run}, answers=False)
    with sleeping(run) as process, ending_unbegun_runs(runs, looks=0, step=0.05):
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)
    assert runs.looks > 1
    assert not runs.crashed
