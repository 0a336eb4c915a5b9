"""What a supervisor does when its workers end, in a process of its own: it forks."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from waiting import eventually

from perpetune.gateway.workers.supervisor import Supervisor

pytestmark = [pytest.mark.slow, pytest.mark.integration]


@contextmanager
def running(script: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    code = "import os, signal, sys, time\nfrom pathlib import Path\n"
    code += "from perpetune.gateway.workers.supervisor import Supervisor\nfolder = Path(sys.argv[1])\n"
    with subprocess.Popen([sys.executable, "-c", code + textwrap.dedent(script), str(folder)]) as child:
        try:
            yield child
        finally:
            child.terminate()
            child.wait(30)


def test_a_worker_that_keeps_ending_holds_up_no_other(tmp_path: Path) -> None:
    script = """
        def work(number):
            if number == 1 and (folder / "once").exists():
                (folder / "again").touch()
                time.sleep(60)
            if number == 1:
                time.sleep(0.3)
                (folder / "once").touch()
            raise ValueError

        supervisor = Supervisor(2, work, lambda: None)
        supervisor._faults[0] = 10  # so that it is started again after 30 s
        supervisor.run()
    """
    with running(script, tmp_path) as child:
        eventually((tmp_path / "again").exists, seconds=15)
        child.send_signal(signal.SIGTERM)
        assert child.wait(10) == 0


def test_a_worker_that_keeps_ending_for_a_week_is_still_started_again() -> None:
    supervisor = Supervisor(1, lambda _: None, lambda: None)
    supervisor._faults[0], supervisor._began[0] = 7 * 24 * 120, time.monotonic()
    assert not supervisor._ended(0, 1)
    assert 29 < supervisor._due[0] - time.monotonic() <= 30


def test_a_signal_that_reaches_a_worker_as_it_is_forked_is_its_own(tmp_path: Path) -> None:
    """Passed on to the others, it would be their second signal, which ends them at once."""
    script = """
        forks = []

        def signalled():
            if len(forks) == 2:
                os.kill(os.getpid(), signal.SIGTERM)

        os.register_at_fork(before=lambda: forks.append(1), after_in_child=signalled)

        def work(number):
            if number == 0:
                signal.signal(signal.SIGTERM, lambda *_: (folder / "signalled").touch())
                (folder / "ready").touch()
            while not (folder / "end").exists():
                time.sleep(0.05)
            if number == 1:
                (folder / "again").touch()

        class Slow(Supervisor):
            def _start(self, number):
                while number == 1 and not (folder / "ready").exists():
                    time.sleep(0.05)
                super()._start(number)

        supervisor = Slow(2, work, lambda: None)
        supervisor.run()
    """
    with running(script, tmp_path) as child:
        eventually((tmp_path / "ready").exists, seconds=15)
        (tmp_path / "end").touch()
        eventually((tmp_path / "again").exists, seconds=15)
        assert not (tmp_path / "signalled").exists()
        child.send_signal(signal.SIGTERM)
        child.wait(10)
