"""A real MLflow server that asks who comes: by its own app for users, where that is installed, and by a proxy before it."""

from __future__ import annotations

import base64
import importlib.util
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import mlflow
import pytest
from waiting import eventually

from perpetune.errors import PerpetuneError
from perpetune.runtime.processes.supervisor import free_ports
from perpetune.tracking.runs import connect, open_run, read_run, run_ref

pytestmark = [pytest.mark.slow, pytest.mark.integration]

USER, PASSWORD, TOKEN = "admin", "correct horse battery", "a-token"
VARIABLES = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
ALLOWED = {f"Basic {base64.b64encode(f'{USER}:{PASSWORD}'.encode()).decode()}", f"Bearer {TOKEN}"}


@contextmanager
def serve_mlflow(folder: Path, *more: str) -> Iterator[str]:
    [port] = free_ports(1)
    command = (sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1")
    store = ("--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}")
    # An address in its environment would be that of another server.
    around = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    around |= {
        "PYTHONSAFEPATH": "1",
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "secret",
        "MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORD,
    }
    around |= {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen([*command, *store, *more], cwd=folder, env=around, stdout=log, stderr=log) as process,
    ):
        url = f"http://127.0.0.1:{port}"
        try:
            eventually(lambda: process.poll() is not None or _answers(url), seconds=120)
            assert process.poll() is None, (folder / "log").read_text()
            yield url
        finally:
            process.terminate()


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", trust_env=False).is_success
    except httpx.HTTPError:
        return False


@pytest.fixture(scope="module")
def behind_a_proxy(tmp_path_factory: pytest.TempPathFactory, new_mlflow_store: Callable[[Path], str]) -> Iterator[str]:
    """The address of a proxy that passes on only requests with a user and password or a token."""
    folder = tmp_path_factory.mktemp("mlflow")
    new_mlflow_store(folder)
    with serve_mlflow(folder) as url:

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.headers.get("authorization") not in ALLOWED:
                    self._answer(401, b"who are you?")
                    return
                content = self.rfile.read(int(self.headers.get("content-length", 0)))
                kept = {name: value for name, value in self.headers.items() if name.lower() == "content-type"}
                with httpx.Client(trust_env=False, timeout=60) as client:
                    answer = client.request(self.command, url + self.path, content=content, headers=kept)
                self._answer(answer.status_code, answer.content)

            do_POST = do_PATCH = do_DELETE = do_PUT = do_GET

            def _answer(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Stay silent."""

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            thread = threading.Thread(target=server.serve_forever, daemon=True)
            thread.start()
            yield f"http://127.0.0.1:{server.server_port}"
            server.shutdown()
            thread.join(timeout=5)


@pytest.fixture(scope="module")
def with_users(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """MLflow's own app for users and permissions, which wants `pip install 'mlflow[auth]'`."""
    if importlib.util.find_spec("flask_wtf") is None:
        pytest.skip("mlflow[auth] is not installed")
    with serve_mlflow(tmp_path_factory.mktemp("users"), "--app-name", "basic-auth") as url:
        yield url


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    before = mlflow.get_tracking_uri()
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("no_proxy", "")
    yield monkeypatch
    mlflow.set_tracking_uri(before)


@pytest.mark.parametrize("server", ["behind_a_proxy", "with_users"])
@pytest.mark.parametrize("credentials", [(USER, PASSWORD, None), (None, None, TOKEN)])
def test_a_protected_server_is_used_with_the_credentials_of_the_environment(
    server: str,
    credentials: tuple[str | None, ...],
    environment: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    if server == "with_users" and TOKEN in credentials:
        pytest.skip("it knows no tokens")
    url: str = request.getfixturevalue(server)
    for wrong in ({}, {"MLFLOW_TRACKING_USERNAME": USER, "MLFLOW_TRACKING_PASSWORD": "no"}):
        with pytest.MonkeyPatch.context() as patch:
            for name, value in wrong.items():
                patch.setenv(name, value)
            with pytest.raises(PerpetuneError, match=r"refuses these credentials \(401\)") as fault:
                connect(url)
        assert "MLFLOW_TRACKING_USERNAME" in str(fault.value)
    for name, given in zip(VARIABLES, credentials, strict=True):
        if given is not None:
            environment.setenv(name, given)
    connect(url)
    run = open_run("colours", "refresh", {"perpetune.kind": "refresh"}, {"epochs": 3})
    assert read_run(run.id).params == {"epochs": "3"}


def test_what_is_no_mlflow_is_said_so(environment: pytest.MonkeyPatch, behind_a_proxy: str) -> None:
    environment.setenv("MLFLOW_TRACKING_TOKEN", TOKEN)
    with pytest.raises(PerpetuneError, match="answers 404"):
        connect(f"{behind_a_proxy}/elsewhere")
    with pytest.raises(PerpetuneError, match=r"does not answer at http://127\.0\.0\.1:9"):
        connect("http://127.0.0.1:9")


def test_a_link_to_a_run_opens_the_view_for_training(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("PERPETUNE_MLFLOW_UI_URL", "https://mlflow.example/")
    assert run_ref("7", "abc").url == ("https://mlflow.example/#/experiments/7/runs/abc?workflowType=machine_learning")
