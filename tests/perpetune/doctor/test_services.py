from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from email.utils import formatdate
from pathlib import Path
from time import time
from typing import Any

import pytest
from certificates import Authority
from local_servers import QuietHandler, serve_until_exit
from workspaces import write_params

from perpetune.doctor import services
from perpetune.runtime.service_state import service_states
from perpetune.workspace import Workspace, open_workspace

Server = Callable[..., str]


@pytest.fixture
def server() -> Iterator[Server]:
    """Start a server with a JSON answer for each path, (status, body), and a clock that is wrong by `skew` seconds."""
    with ExitStack() as stack:

        def start(answers: Mapping[str, tuple[int, Any]], skew: float = 0) -> str:
            class Handler(QuietHandler):
                def do_GET(self) -> None:
                    status, body = answers.get(self.path.split("?")[0], (404, {}))
                    data = json.dumps(body).encode()
                    self.send_response_only(status)
                    self.send_header("date", formatdate(time() + skew, usegmt=True))
                    self.send_header("content-length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data)

                def do_POST(self) -> None:
                    self.rfile.read(int(self.headers["content-length"]))
                    self.do_GET()

            return serve_until_exit(stack, Handler)

        yield start


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Workspace]:
    def make(engine: str = "transformers", **variables: str) -> Workspace:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        write_params(tmp_path, task={"name": "mail"}, serve={"engine": engine})
        return open_workspace(tmp_path)

    return make


def test_without_addresses_nothing_is_checked(workspace: Callable[..., Workspace]) -> None:
    here = workspace()
    found = [*services.prefect(here), *services.mlflow(here), *services.gateway(here), *services.vllm(here)]
    assert [each.level for each in found] == ["not checked"] * 3


@pytest.mark.parametrize(
    ("status", "level", "word"),
    [(200, "ok", ""), (401, "fault", "PREFECT_API_AUTH_STRING"), (404, "fault", "worker"), (500, "fault", "log")],
)
def test_prefect(server: Server, workspace: Callable[..., Workspace], status: int, level: str, word: str) -> None:
    answers: dict[str, tuple[int, Any]] = {
        "/api/deployments/name/refresh/mail": (status, {}),
        "/api/automations/filter": (200, []),
    }
    found, *more = services.prefect(workspace(PREFECT_API_URL=f"{server(answers)}/api"))
    assert found.level == level
    assert word in found.do
    assert [each.subject for each in more] == (["alerts"] if level == "ok" else [])


@pytest.mark.parametrize(("names", "level"), [(["perpetune mail: test"], "ok"), (["perpetune other: test"], "warning")])
def test_alerts_to_no_one_are_a_warning(
    server: Server, workspace: Callable[..., Workspace], names: list[str], level: str
) -> None:
    automations = [{"name": name} for name in names]
    url = server({"/api/deployments/name/refresh/mail": (200, {}), "/api/automations/filter": (200, automations)})
    _, alerts = services.prefect(workspace(PREFECT_API_URL=f"{url}/api"))
    assert (alerts.subject, alerts.level) == ("alerts", level)


def test_a_clock_that_is_wrong_is_a_fault(server: Server, workspace: Callable[..., Workspace]) -> None:
    url = server({"/api/2.0/mlflow/experiments/search": (200, {})}, skew=-3600)
    answered, clock = services.mlflow(workspace(MLFLOW_TRACKING_URI=url))
    assert (answered.level, clock.level, clock.subject) == ("ok", "fault", "clock")
    assert "3600 s" in clock.what or "3599 s" in clock.what or "3601 s" in clock.what


def test_mlflow_that_refuses_names_the_variables_of_its_credentials(
    server: Server, workspace: Callable[..., Workspace]
) -> None:
    url = server({"/api/2.0/mlflow/experiments/search": (401, {})})
    (found,) = services.mlflow(workspace(MLFLOW_TRACKING_URI=url, MLFLOW_TRACKING_USERNAME="me"))
    assert "MLFLOW_TRACKING_PASSWORD" in found.do


def test_an_address_where_nothing_listens(workspace: Callable[..., Workspace]) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    (found,) = services.gateway(workspace(PERPETUNE_GATEWAY_URL=f"http://127.0.0.1:{port}"))
    assert found.level == "fault"
    assert "does not answer" in found.what


READY = {"ready": True, "serving": "7", "release": "ok", "registry": "ok", "log": "ok"}


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ({"/readyz": (200, READY), "/v1/models": (200, {})}, [("ok", "serves version 7")]),
        (
            {"/readyz": (200, READY), "/v1/models": (401, {})},
            [("ok", "serves version 7"), ("fault", "refuses our key")],
        ),
        ({"/readyz": (503, READY | {"ready": False, "release": "no base"})}, [("fault", "no base")]),
        ({"/readyz": (200, READY | {"log": "down"})}, [("ok", "serves"), ("warning", "log: down")]),
        ({"/readyz": (200, {"hello": "world"})}, [("fault", "no gateway of perpetune")]),
    ],
)
def test_gateway(
    server: Server,
    workspace: Callable[..., Workspace],
    answers: Mapping[str, tuple[int, Any]],
    expected: list[tuple[str, str]],
) -> None:
    found = services.gateway(workspace(PERPETUNE_GATEWAY_URL=server(answers)))
    assert [each.level for each in found] == [level for level, _ in expected]
    assert all(words in each.what for each, (_, words) in zip(found, expected, strict=True))


@pytest.mark.parametrize(
    ("paths", "level"), [({"/v1/load_lora_adapter": {}}, "ok"), ({"/v1/chat/completions": {}}, "fault")]
)
def test_vllm_must_be_able_to_load_adapters(
    server: Server, workspace: Callable[..., Workspace], paths: Mapping[str, Any], level: str
) -> None:
    url = server({"/v1/models": (200, {"data": []}), "/openapi.json": (200, {"paths": paths})})
    (found,) = services.vllm(workspace(engine="vllm", PERPETUNE_VLLM_URL=url))
    assert found.level == level
    assert level == "ok" or "--enable-lora" in found.do


def test_a_taken_port_is_a_warning(workspace: Callable[..., Workspace], monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setattr("perpetune.runtime.stack.Ports.gateway", taken.getsockname()[1])
        found = services.ports(workspace())
    assert found.level == "warning"
    assert "the gateway" in found.what


def test_each_replica_of_vllm_is_reached_by_mutual_tls(workspace: Callable[..., Workspace], tmp_path: Path) -> None:
    ca = Authority(tmp_path)
    certificate, key = ca.issue("doctor")

    class Handler(QuietHandler):
        def do_GET(self) -> None:
            body = json.dumps({"paths": {"/v1/load_lora_adapter": {}}}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=ca.ca)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(*ca.issue("server"))
    with ExitStack() as stack:
        urls = ",".join(serve_until_exit(stack, Handler, context) for _ in range(2))
        ours = {"PERPETUNE_VLLM_URL": urls, "PERPETUNE_VLLM_CA": str(ca.ca)}
        shown = {"PERPETUNE_VLLM_CLIENT_CERTIFICATE": str(certificate), "PERPETUNE_VLLM_CLIENT_KEY": str(key)}
        assert [each.level for each in services.vllm(workspace(engine="vllm", **ours))] == ["fault", "fault"]
        here = workspace(engine="vllm", **ours, **shown)
        assert [each.level for each in services.vllm(here)] == ["ok", "ok"]
        assert service_states(here)[1].up
    assert not service_states(here)[1].up
    (found,) = services.vllm(workspace(engine="vllm", **ours, PERPETUNE_VLLM_CLIENT_KEY=str(tmp_path / "none")))
    assert found.level == "fault" and "PERPETUNE_VLLM_CLIENT_KEY cannot be read" in found.what


@pytest.mark.parametrize(
    ("tasks", "level", "word"),
    [
        ({"mail": 1}, "ok", "serves version 1"),
        ({"mail": None}, "fault", "still loads"),
        ({}, "fault", "not serve mail"),
    ],
)
def test_a_gateway_of_several_tasks_is_asked_for_ours(
    workspace: Callable[..., Workspace], server: Server, tasks: dict[str, int | None], level: str, word: str
) -> None:
    states = {
        task: {"task": task, "serving": version, "ready": version is not None, "registry": "ok", "log": "ok"}
        | {"release": "ok" if version else "still loads"}
        for task, version in {"other": 7, **tasks}.items()
    }
    answers = {"/readyz": (200, {"ready": True, "tasks": states}), "/v1/models": (200, {})}
    here = workspace(PERPETUNE_GATEWAY_URL=server(answers))
    found = services.gateway(here)[0]
    assert (found.level, word in found.what) == (level, True)
    assert service_states(here)[0].up == (level == "ok")
