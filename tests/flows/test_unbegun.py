"""A flow run whose process lives and never begins is ended; others are left alone."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID, uuid4

import httpx
import pytest

from perpetune.flows import unbegun
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


def test_a_run_that_does_not_begin_is_killed_and_one_that_runs_is_not() -> None:
    waits, runs = uuid4(), uuid4()
    with sleeping(waits) as waiting, sleeping(runs) as running, sleeping(None) as other:
        with ending_unbegun_runs(lambda run: run == waits, seconds=0.2, step=0.1):
            assert waiting.wait(30) == -9
        assert running.poll() is None
        assert other.poll() is None, "a process that is no flow run"


def test_a_run_has_time_to_begin() -> None:
    with sleeping(uuid4()) as process, ending_unbegun_runs(lambda run: True, seconds=600, step=0.05):
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)


def test_a_server_that_does_not_answer_ends_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def broken(sync_client: bool) -> None:
        asked.append(sync_client)
        raise httpx.ConnectError("refused")

    monkeypatch.setattr(unbegun, "get_client", broken)
    with sleeping(uuid4()) as process, ending_unbegun_runs(seconds=0.0, step=0.1):
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(2)
    assert len(asked) > 1, "it is asked again"
