"""`perpetune up` with small services instead of the real ones: its output, and one instance per workspace."""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from perpetune.cli import app
from perpetune.runtime.addresses import LOCK_FILE, Addresses, is_up, save_addresses, saved_addresses
from perpetune.runtime.processes.file_locks import acquire
from perpetune.runtime.processes.ports import NamedPorts
from perpetune.runtime.processes.supervisor import Service, Supervisor, answers, free_ports
from perpetune.runtime.up import print_ports, show, start_all

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
SERVER = "import http.server as h; h.HTTPServer(('127.0.0.1', {port}), h.SimpleHTTPRequestHandler).serve_forever()"
ADDRESSES = {
    "PREFECT_API_URL": "http://127.0.0.1:4202/api",
    "MLFLOW_TRACKING_URI": "http://127.0.0.1:5001",
    "PERPETUNE_GATEWAY_URL": "http://127.0.0.1:8001",
}


class Counting(ThreadingHTTPServer):
    """Answers everything with 200, and counts connections and requests."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.connections = 0
        self.requests = 0

    def process_request(self, request: object, client_address: object) -> None:
        self.connections += 1
        super().process_request(request, client_address)  # type: ignore[arg-type]


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        assert isinstance(self.server, Counting)
        self.server.requests += 1
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def counting() -> Iterator[Counting]:
    with Counting() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def service(name: str) -> Service:
    [port] = free_ports(1)
    page = f"http://127.0.0.1:{port}"
    return Service(name, (sys.executable, "-c", SERVER.format(port=port)), port, page, page)


def a_gateway(root: Path, *, ready: bool) -> Service:
    """A server of the files of `root`; the readiness path may be missing."""
    for path in ("healthz", *(["readyz"] if ready else [])):
        (root / path).touch()
    bare = service("gateway")
    return replace(bare, health=f"{bare.page}/healthz")


def test_health_checks_share_one_connection(counting: Counting) -> None:
    assert all(answers(f"http://127.0.0.1:{counting.server_port}/health") for _ in range(20))
    assert (counting.requests, counting.connections) == (20, 1)


def test_into_a_file_it_says_each_start_and_when_all_is_ready(tmp_path: Path) -> None:
    out = StringIO()
    first, last = [service("prefect"), service("mlflow")], a_gateway(tmp_path, ready=True)
    with Supervisor(tmp_path, tmp_path / "logs", {}, print) as supervisor:
        start_all(supervisor, first, last, Console(file=out, width=40))
    said = out.getvalue().splitlines()
    assert sorted(re.sub(r"\d+ s", "N s", line) for line in said[:-1]) == [
        "gateway: started (N s)",
        "mlflow: started (N s)",
        "prefect: started (N s)",
    ]
    pages = f"gateway {last.page} mlflow {first[1].page} prefect {first[0].page}"
    assert re.fullmatch(rf"ready: {pages} \(\d+ s\)", said[-1])


def test_ports_that_are_not_the_usual_ones_and_ports_for_nothing_are_said() -> None:
    out = StringIO()
    services = [Service("prefect", (), 4200), Service("worker", (), 4299), Service("gateway", (), 8123)]
    print_ports(services, NamedPorts(mlflow=5000, gateway=8123), Console(file=out, width=40))
    assert out.getvalue().splitlines() == [
        "--mlflow-port 5000 is not used: the environment names a mlflow that runs elsewhere",
        "port 4201 is in use: worker listens on 4299",
    ]


def test_it_says_so_if_no_version_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perpetune.runtime.up.FIRST_VERSION_SECONDS", 1.0)
    out = StringIO()
    with Supervisor(tmp_path, tmp_path / "logs", {}, print) as supervisor:
        start_all(supervisor, [], a_gateway(tmp_path, ready=False), Console(file=out, width=40))
    assert out.getvalue().splitlines()[-1].startswith("ready, but the gateway has no version yet (/readyz says why): ")


def test_without_a_terminal_changes_are_printed(tmp_path: Path) -> None:
    class Watching(StringIO):
        """A reader of the output that stops it at the second change."""

        def flush(self) -> None:
            if self.getvalue().count("files: ") == 2:
                raise KeyboardInterrupt

    out = Watching()
    with Supervisor(tmp_path, tmp_path / "logs", {}, lambda line: None) as supervisor:
        supervisor.start([service("files")])
        [child] = supervisor.children

        def die_when_it_was_seen() -> None:
            os.kill(child.process.pid, 9)

        threading.Timer(1.5, die_when_it_was_seen).start()
        with pytest.raises(KeyboardInterrupt):
            show(supervisor, Console(file=out))
    assert out.getvalue().splitlines()[0] in ("files: down", "files: not answering")
    assert out.getvalue().splitlines()[-1] in ("files: healthy", "files: not answering")


def test_addresses_of_a_stack_that_died_are_not_believed(tmp_path: Path) -> None:
    held = acquire(tmp_path / LOCK_FILE)
    assert held is not None
    assert (is_up(tmp_path), saved_addresses(tmp_path)) == (True, None), "it starts"
    save_addresses(tmp_path, ADDRESSES | {"PREFECT_HOME": "/elsewhere"}, ["gateway", "mlflow"])
    assert saved_addresses(tmp_path) == Addresses(ADDRESSES, frozenset({"gateway", "mlflow"}))
    held.close()  # as when its process ends, however
    assert (is_up(tmp_path), saved_addresses(tmp_path)) == (False, None)


def test_a_second_one_in_a_workspace_is_refused_with_the_addresses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PERPETUNE_HOME", raising=False)
    home = tmp_path / ".perpetune"
    with acquire(home / LOCK_FILE) or pytest.fail("it is held"):
        save_addresses(home, ADDRESSES, ())
        said = CliRunner().invoke(app, ["up"])
        assert saved_addresses(home) == Addresses(ADDRESSES, frozenset())
    assert said.exit_code == 1
    assert f"`perpetune up` already runs here as process {os.getpid()}" in said.stderr
    assert "http://127.0.0.1:8001" in said.stderr
    assert not (home / "logs").exists(), "nothing was started"
