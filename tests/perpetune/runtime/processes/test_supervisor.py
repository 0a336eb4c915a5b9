from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from perpetune.errors import PerpetuneError
from perpetune.runtime.processes.supervisor import Service, Supervisor, answers, free_ports

pytestmark = pytest.mark.slow

SERVER = "import http.server as h; h.HTTPServer(('127.0.0.1', {port}), h.SimpleHTTPRequestHandler).serve_forever()"


def server(name: str = "files") -> Service:
    [port] = free_ports(1)
    page = f"http://127.0.0.1:{port}"
    return Service(name, (sys.executable, "-c", SERVER.format(port=port)), port, page, page)


def program(code: str, *, name: str = "odd", health: str | None = None) -> Service:
    return Service(name, (sys.executable, "-c", code), health=health)


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def supervisor(tmp_path: Path, said: list[str]) -> Iterator[Supervisor]:
    with Supervisor(tmp_path, tmp_path / "logs", {"GREETING": "hello"}, said.append) as running:
        yield running


def test_start_returns_when_all_are_healthy_and_all_end_with_the_block(tmp_path: Path) -> None:
    services = [server("one"), server("two")]
    with Supervisor(tmp_path, tmp_path / "logs", {}, print) as running:
        running.start(services)
        assert [child.healthy() for child in running.children] == [True, True]
    assert [answers(str(service.health)) for service in services] == [False, False]
    assert [child.alive() for child in running.children] == [False, False]


def test_a_child_that_dies_is_reported_and_started_again(supervisor: Supervisor, said: list[str]) -> None:
    supervisor.start([server()])
    [child] = supervisor.children
    os.kill(child.process.pid, signal.SIGKILL)
    wait_until(lambda: child.restarts == 1 and child.healthy())
    assert said == [f"files ended with code -9; starting it again in 1 s (its log: {child.log})"]


def test_a_port_in_use_is_one_clear_error(supervisor: Supervisor) -> None:
    service = server("mlflow")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", service.port or 0))
        taken.listen()
        with pytest.raises(PerpetuneError, match=f"port {service.port}, meant for mlflow, is in use") as fault:
            supervisor.start([server("one"), service])
    assert "--mlflow-port" in str(fault.value)
    assert supervisor.children == [], "nothing is started by halves"


def test_a_service_that_ends_while_starting_shows_its_log(supervisor: Supervisor) -> None:
    broken = program("import os, sys; sys.exit(os.environ['GREETING'] + ', no database')", health="http://127.0.0.1:9")
    with pytest.raises(PerpetuneError, match="hello, no database"):
        supervisor.start([broken])


def test_processes_of_a_child_end_with_it(tmp_path: Path) -> None:
    """A flow run must not outlive the worker that started it."""
    grandchild = tmp_path / "pid"
    code = (
        "import subprocess, sys, time; from pathlib import Path;"
        "p = subprocess.Popen([sys.executable, '-c', 'import time, signal; signal.signal(15, signal.SIG_IGN); time.sleep(99)']);"
        f"Path({str(grandchild)!r}).write_text(str(p.pid)); time.sleep(99)"
    )
    with Supervisor(tmp_path, tmp_path / "logs", {}, print) as running:
        running.start([program(code)])
        wait_until(lambda: grandchild.exists() and bool(grandchild.read_text()))
    wait_until(lambda: not _runs(int(grandchild.read_text())))


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
