"""Services end with their supervisor, however it ends, and with all that they started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from waiting import eventually

from perpetune.runtime.processes import watchdog
from perpetune.runtime.processes.supervisor import Service, Supervisor

pytestmark = pytest.mark.slow

# A service that starts a process in its own group and one in a session of its own, which all ignore SIGTERM or not.
SERVICE = """
import os, signal, subprocess, sys, time
if sys.argv[2] == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
sleep = [sys.executable, "-c", "import time; time.sleep(99)"]
started = [subprocess.Popen(sleep), subprocess.Popen(sleep, start_new_session=True)]
with open(sys.argv[1] + ".new", "w") as file:
    file.write(" ".join(str(each) for each in [os.getpid(), *(each.pid for each in started)]))
os.rename(sys.argv[1] + ".new", sys.argv[1])
time.sleep(99)
"""
# A service that is asked to end and starts a process first.
LATE = """
import os, signal, subprocess, sys, time

def start(*_):
    sleep = [sys.executable, "-c", "import time; time.sleep(99)"]
    with open(sys.argv[1], "w") as file:
        file.write(str(subprocess.Popen(sleep, start_new_session=True).pid))
    os._exit(0)

signal.signal(signal.SIGTERM, start)
open(sys.argv[1], "w").close()
time.sleep(99)
"""
SUPERVISOR = """
import sys, time
from pathlib import Path
from perpetune.runtime.processes.supervisor import Service, Supervisor

service = Service("tree", (sys.executable, "-c", *sys.argv[2:]))
folder = Path(sys.argv[1])
(folder / "addresses.env").touch()
with Supervisor(folder, folder / "logs", {}, print, files=[folder / "addresses.env"]) as running:
    running.start([service])
    time.sleep(99)
"""


@pytest.fixture
def pids(tmp_path: Path) -> Path:
    return tmp_path / "pids"


@pytest.fixture(params=[""])
def supervisor(request: pytest.FixtureRequest, tmp_path: Path, pids: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-c", SUPERVISOR, str(tmp_path), SERVICE, str(pids), str(request.param)]
    with subprocess.Popen(command, start_new_session=True) as running:
        eventually(pids.exists)
        yield running
        running.kill()


@pytest.mark.parametrize(
    ("supervisor", "number"),
    [
        ("", signal.SIGKILL),
        ("", signal.SIGHUP),
        ("", signal.SIGQUIT),
        ("", signal.SIGTERM),
        ("deaf", signal.SIGKILL),
    ],
    indirect=["supervisor"],
)
def test_nothing_outlives_a_supervisor_that_is_ended(
    supervisor: subprocess.Popen[bytes], pids: Path, number: signal.Signals
) -> None:
    started = processes(pids)
    helper = watchdogs(supervisor.pid)
    assert (len(started), len(helper)) == (3, 1)
    os.kill(supervisor.pid, number)
    supervisor.wait(10)
    eventually(lambda: not any(runs(each) for each in [*started, *helper]), seconds=30)
    assert not pids.with_name("addresses.env").exists()


def test_a_signal_of_the_terminal_reaches_the_group_and_not_the_watchdog(
    supervisor: subprocess.Popen[bytes], pids: Path
) -> None:
    """A closed terminal sends SIGHUP to all of the foreground's process group."""
    started = processes(pids)
    os.killpg(supervisor.pid, signal.SIGHUP)
    supervisor.wait(10)
    eventually(lambda: not any(runs(each) for each in started), seconds=30)


def test_an_orderly_end_leaves_nothing_either(tmp_path: Path, pids: Path) -> None:
    service = Service("tree", (sys.executable, "-c", SERVICE, str(pids), ""))
    of_others = watchdogs()  # of a server that the tests of this process share
    with Supervisor(tmp_path, tmp_path / "logs", {}, print) as running:
        running.start([service])
        eventually(pids.exists)
        started = [*processes(pids), *(each for each in watchdogs() if each not in of_others)]
    assert len(started) == 4
    assert not [each for each in started if runs(each)]


def test_an_orderly_end_finds_what_a_service_starts_while_it_ends(tmp_path: Path, pids: Path) -> None:
    """Such as the worker's flow run that was due in this moment: in a session of its own, without a parent."""
    service = Service("late", (sys.executable, "-c", LATE, str(pids)))
    with Supervisor(tmp_path, tmp_path / "logs", {}, print) as running:
        running.start([service])
        eventually(pids.exists)
        pids.unlink()
    assert not is_alive(int(pids.read_text()))


def test_a_service_that_dies_takes_its_processes_with_it_and_comes_back(tmp_path: Path, pids: Path) -> None:
    service = Service("tree", (sys.executable, "-c", SERVICE, str(pids), ""))
    with Supervisor(tmp_path, tmp_path / "logs", {}, lambda line: None) as running:
        running.start([service])
        eventually(pids.exists)
        leader, *others = processes(pids)
        pids.unlink()
        leader.kill()
        eventually(lambda: not any(runs(each) for each in others))
        eventually(pids.exists)


def watchdogs(supervisor: int | None = None) -> list[psutil.Process]:
    """Not all children: tests that ran before in this process may have left some, such as a resource tracker."""
    return [each for each in psutil.Process(supervisor).children() if watchdog.__name__ in each.cmdline()]


def processes(pids: Path) -> list[psutil.Process]:
    return [psutil.Process(int(each)) for each in pids.read_text().split()]


def is_alive(pid: int) -> bool:
    """A process without a parent stays a zombie until the system collects it."""
    try:
        return runs(psutil.Process(pid))
    except psutil.NoSuchProcess:
        return False


def runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
