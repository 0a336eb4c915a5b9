"""`perpetune up` as people start it, in a process of its own: its output in a file, behind a proxy, with a password.

Prefect asks for its CSRF token too, as some teams set it. The workspace serves another one: one gateway, one Prefect,
one MLflow, and a worker for each.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

import httpx
import openai
import psutil
import pytest
from command_line import perpetune
from local_servers import QuietHandler, serve_until_exit
from waiting import eventually
from workspaces import write_params

from perpetune.prediction_log.database import open_log
from perpetune.prediction_log.queries import recent_predictions
from perpetune.runtime.addresses import ADDRESSES, LOCK_FILE, WORKSPACE_ID, save_addresses, saved_addresses
from perpetune.runtime.processes.file_locks import acquire
from perpetune.runtime.processes.supervisor import free_ports
from perpetune.workspace import open_workspace

pytestmark = [pytest.mark.slow, pytest.mark.integration, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-c", "from perpetune.cli import app; app()")
SERVICES = ("prefect", "mlflow", "gateway", "worker")
TASKS = ("colours", "things")
EVIL = "https://evil.example"
USER = "admin:se cret"
# Nothing listens there, as if this machine were looked for behind a company's proxy.
BEHIND_A_PROXY = dict.fromkeys(("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"), "http://127.0.0.1:9")


class Inbox(QuietHandler):
    """Takes alerts as Apprise's `json://` sends them."""

    alerts: ClassVar[list[dict[str, str]]] = []

    def do_POST(self) -> None:
        self.alerts.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        self.send_response(200)
        self.end_headers()


@dataclass(frozen=True)
class Stack:
    folder: Path
    process: subprocess.Popen[bytes]
    ports: Mapping[str, int]
    environment: Mapping[str, str]

    def url(self, service: str) -> str:
        return f"http://127.0.0.1:{self.ports[service]}"

    def perpetune(self, folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {**self.environment, **variables}
        return subprocess.run(
            [*COMMAND, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
        )


@pytest.fixture(scope="module")
def inbox() -> Iterator[str]:
    with ExitStack() as servers:
        yield serve_until_exit(servers, Inbox)


@pytest.fixture(scope="module")
def stack(
    inbox: str,
    tmp_path_factory: pytest.TempPathFactory,
    random_model: Callable[[Path, Sequence[str], int], Path],
    seed_servers: Callable[..., None],
) -> Iterator[Stack]:
    root = tmp_path_factory.mktemp("several")
    base = random_model(tmp_path_factory.mktemp("base"), ("system", "user", "assistant", "which", "colour"), 64)
    for task in TASKS:
        (root / task).mkdir()
        write_params(
            root / task,
            task={"name": task, "instruction": "which colour"},
            base={"model": f"path:{base}", "revision": None},
            train={"precision": "fp32"},
            watch={"cron": "0 0 29 2 *"},
        )
        shutil.copy(ROOT / "dvc.yaml", root / task)
    folder = root / TASKS[0]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_", "PERPETUNE_"))
    }
    environment |= {
        **BEHIND_A_PROXY,
        "PYTHONPATH": path,
        "PERPETUNE_ASSETS": str(ROOT / "assets"),
        "PREFECT_SERVER_API_AUTH_STRING": USER,
        "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
        "PERPETUNE_ALERTS": inbox.replace("http://", "json://"),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PERPETUNE_HOME", raising=False)
        seed_servers(open_workspace(folder))
        added = perpetune(folder, "serve", "add", f"../{TASKS[1]}")
        assert added.exit_code == 0, added.output
    ports = dict(zip(SERVICES, free_ports(4), strict=True))
    options = [word for name, port in ports.items() for word in (f"--{name}-port", str(port))]
    with (folder / "out.txt").open("wb") as out:
        process = subprocess.Popen([*COMMAND, "up", *options], cwd=folder, env=environment, stdout=out, stderr=out)
    stack = Stack(folder, process, ports, environment)
    try:
        eventually(lambda: process.poll() is not None or "ready" in said(stack), seconds=400)
        assert process.poll() is None, said(stack)
        eventually(lambda: is_ready(stack.url("gateway")), every=0.5)
        yield stack
    finally:
        process.terminate()
        process.wait(60)


def said(stack: Stack) -> str:
    return (stack.folder / "out.txt").read_text()


def test_into_a_file_it_prints_the_addresses_and_that_all_is_ready(stack: Stack) -> None:
    ready = eventually(lambda: next((line for line in said(stack).splitlines() if line.startswith("ready")), ""))
    begun = next(line for line in said(stack).splitlines() if line.startswith("starting: "))
    assert begun.endswith(f"; logs in {Path('.perpetune/logs')}")
    for service in ("prefect", "mlflow", "gateway"):
        assert f"{service} {stack.url(service)}" in ready
        assert f"{service} {stack.url(service)}" in begun
        assert f"{service}: started" in said(stack)


def alerts_about(words: str) -> list[dict[str, str]]:
    return [each for each in Inbox.alerts if words in each["title"] + each["message"]]


@pytest.fixture(scope="module")
def dead_run(stack: Stack) -> str:
    """The id of a run that is said to be running and was last heard of a minute ago, as when its machine died."""
    with httpx.Client(base_url=f"{stack.url('prefect')}/api", trust_env=False, auth=tuple(USER.split(":"))) as client:  # type: ignore[arg-type]
        token = client.get("/csrf-token", params={"client": "test"}).json()["token"]
        client.headers.update({"Prefect-Csrf-Client": "test", "Prefect-Csrf-Token": token})
        deployment = eventually(lambda: client.get("/deployments/name/watch/colours").json().get("id"))
        scheduled = {"type": "SCHEDULED", "state_details": {"scheduled_time": "2999-01-01T00:00:00Z"}}
        run = client.post(f"/deployments/{deployment}/create_flow_run", json={"state": scheduled}).json()["id"]
        client.post(
            f"/flow_runs/{run}/set_state", json={"state": {"type": "RUNNING"}, "force": True}
        ).raise_for_status()
        related = {
            "prefect.resource.id": f"prefect.deployment.{deployment}",
            "prefect.resource.role": "deployment",
            "prefect.resource.name": "colours",
        }
        heartbeat = {
            "id": str(uuid4()),
            "occurred": (datetime.now(UTC) - timedelta(minutes=1)).isoformat(),
            "event": "prefect.flow-run.heartbeat",
            "resource": {"prefect.resource.id": f"prefect.flow-run.{run}"},
            "related": [related],
        }
        eventually(lambda: client.post("/events", json=[heartbeat]).is_success)
    return str(run)


def posted(client: httpx.Client, path: str, body: object) -> Any:
    """Prefect's answer, after it has taken the request: its database may be busy."""
    return eventually(lambda: (answer := client.post(path, json=body)).is_success and answer.json())


def test_a_test_alert_arrives_and_the_command_says_so(stack: Stack, dead_run: str) -> None:
    done = stack.perpetune(stack.folder, "alerts", "test", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"sent": 1, "failed": []}
    assert alerts_about("colours tests its alerts")


@pytest.mark.parametrize(
    ("service", "path", "body"),
    [
        ("worker", "/shutdown", ""),
        ("prefect", "/api/flow_runs/filter", "{}"),
        ("prefect", "/api/events", "[]"),
        ("prefect", "/api/automations/filter", "{}"),
        ("mlflow", "/api/2.0/mlflow/experiments/create", '{"name": "theirs"}'),
        ("mlflow", "/ajax-api/2.0/mlflow/registered-models/create", '{"name": "theirs"}'),
    ],
)
@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "text/plain", "application/json", None])
def test_no_page_of_another_site_reaches_a_service(
    stack: Stack, service: str, path: str, body: str, kind: str | None
) -> None:
    with httpx.Client(trust_env=False, timeout=30, auth=tuple(USER.split(":"))) as client:  # type: ignore[arg-type]
        request = client.build_request("POST", stack.url(service) + path, content=body, headers={"origin": EVIL})
        request.headers.pop("content-type", None)
        if kind is not None:
            request.headers["content-type"] = kind
        answer = client.send(request)
        assert answer.status_code in (403, 501)
        assert "CSRF" not in answer.text, "refused before Prefect sees it"
        asked = {"origin": EVIL, "access-control-request-method": "POST"}
        preflight = client.options(stack.url(service) + path, headers=asked)
        assert preflight.headers.get("access-control-allow-origin") not in ("*", EVIL)
        assert client.get(f"{stack.url('worker')}/health").status_code == 200, "the worker goes on"


@pytest.mark.parametrize(("service", "path"), [("prefect", "/api/admin/version"), ("mlflow", "/")])
def test_no_name_of_another_site_that_points_here_is_answered(stack: Stack, service: str, path: str) -> None:
    with httpx.Client(trust_env=False, timeout=30, auth=tuple(USER.split(":"))) as client:  # type: ignore[arg-type]
        for host in ("evil.example", "10.evil.example", "192.168.evil.example", f"evil.example:{stack.ports[service]}"):
            assert client.get(stack.url(service) + path, headers={"host": host}).status_code == 403, host
        for host in ("localhost", f"localhost:{stack.ports[service]}", "127.0.0.1:9999"):
            assert client.get(stack.url(service) + path, headers={"host": host}).status_code == 200, host


def test_both_answer_and_are_logged_where_they_live(stack: Stack) -> None:
    assert f"worker-{TASKS[1]}: started" in said(stack)
    ids = {}
    with gateway_client(stack.url("gateway")) as client:
        for task in TASKS:
            for number in range(3):
                asked = [{"role": "user", "content": f"{task} {number}"}]
                answer = client.chat.completions.create(model=task, messages=asked)  # type: ignore[arg-type]
                assert answer.model == f"{task}@1"
                ids[task] = answer.id
    rows = [{"request_id": ids[task], "score": 1} for task in TASKS]
    given = httpx.post(f"{stack.url('gateway')}/v1/feedback", json=rows, timeout=10, trust_env=False)
    assert given.json()["recorded"] == 2
    for task in TASKS:
        with closing(Log(stack.folder.parent / task)) as log:
            eventually(lambda log=log, task=task: len(log.inputs(task)) == 3)  # type: ignore[misc]
            assert sorted(log.inputs(task)) == [f"{task} {number}" for number in range(3)]


def test_commands_work_behind_a_proxy_and_with_a_password(stack: Stack) -> None:
    for task in TASKS:
        watch = stack.perpetune(stack.folder.parent / task, "watch")
        assert watch.returncode == 0, watch.stdout + watch.stderr
        status = stack.perpetune(stack.folder.parent / task, "status")
        assert status.returncode == 0, status.stderr
        assert "version 1, prompted base" in status.stdout and "the gateway serves it" in status.stdout
        assert "3 predictions" in status.stdout, status.stdout
    refused = stack.perpetune(stack.folder, "watch", PREFECT_SERVER_API_AUTH_STRING="admin:wrong")
    assert refused.returncode == 1
    assert "PREFECT_API_AUTH_STRING" in refused.stderr and "Traceback" not in refused.stderr


def test_the_doctor_finds_the_running_services_well(stack: Stack) -> None:
    found = {each["subject"]: each for each in json.loads(stack.perpetune(stack.folder, "doctor", "--json").stdout)}
    assert {
        name: found[name]["level"] for name in ("Prefect", "alerts", "MLflow", "gateway", "prediction log", "champion")
    } == {
        "Prefect": "ok",
        "alerts": "ok",
        "MLflow": "ok",
        "gateway": "ok",
        "prediction log": "ok",
        "champion": "ok",
    }


def test_the_doctor_says_how_a_refused_password_is_corrected(stack: Stack) -> None:
    done = stack.perpetune(stack.folder, "doctor", "--json", PREFECT_API_AUTH_STRING="admin:wrong")
    assert done.returncode == 1
    prefect = next(each for each in json.loads(done.stdout) if each["subject"] == "Prefect")
    assert prefect["level"] == "fault"
    assert "PREFECT_API_AUTH_STRING" in prefect["do"]


def test_a_copy_of_the_workspace_touches_nothing_of_it(stack: Stack, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(stack.folder, copy)
    saved = saved_addresses(stack.folder / ".perpetune")
    assert saved is not None and saved_addresses(copy / ".perpetune") is None, "nothing runs in the copy"
    variables = {name: value for name, value in saved.variables.items() if name != WORKSPACE_ID}
    for command in (["promote", "1", "--reason", "x"], ["rollback"], ["watch"]):
        for given in (variables, {}):  # exported in this terminal before; and left behind by a crash in the copy
            with acquire(copy / ".perpetune" / LOCK_FILE) or pytest.fail("it is held"):
                mine = {**saved.variables, WORKSPACE_ID: "of-the-copy"}
                save_addresses(copy / ".perpetune", mine, ["gateway", "mlflow", "prefect"])
                done = stack.perpetune(copy, *command, **given)
            assert done.returncode == 1, done.stdout
            assert "another workspace" in done.stderr, done.stderr


def test_a_run_whose_process_died_is_ended_and_told(stack: Stack, dead_run: str) -> None:
    (alert,) = eventually(lambda: alerts_about(dead_run), seconds=300)
    assert "has not been heard of" in alert["message"]
    assert "Crashed" in alert["message"]
    assert f"{stack.url('prefect')}/runs/flow-run/{dead_run}" in alert["message"], "a link"


def test_a_second_stack_for_the_served_one_is_refused(stack: Stack) -> None:
    done = stack.perpetune(stack.folder.parent / TASKS[1], "up")
    assert done.returncode == 1
    assert f"`perpetune up` already runs here as process {stack.process.pid}" in done.stderr


def test_a_port_out_of_range_is_wrong_usage(stack: Stack) -> None:
    for port in ("70000", "0", "-1", "many"):
        for service in (*SERVICES, "vllm"):
            done = perpetune(stack.folder, "up", f"--{service}-port", port)
            assert (done.exit_code, type(done.exception)) == (2, SystemExit), done.output


def test_a_closed_terminal_ends_it_with_all_services(stack: Stack) -> None:
    """Afterwards nothing runs."""
    started = psutil.Process(stack.process.pid).children(recursive=True)
    assert len(started) >= 6
    os.kill(stack.process.pid, signal.SIGHUP)
    time.sleep(0.2)
    os.kill(stack.process.pid, signal.SIGHUP)  # the shell and the kernel both send it
    assert stack.process.wait(60) == 0
    eventually(lambda: not any(runs(each) for each in started), seconds=30)
    assert "all services have stopped" in said(stack), "in good order"
    for task in TASKS:
        assert not (stack.folder.parent / task / ".perpetune" / ADDRESSES).exists()


def test_the_gateway_runs_alone_until_a_signal(stack: Stack) -> None:
    """The last test: with nothing but an MLflow that it starts itself."""
    [port] = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    command = [*COMMAND, "serve", "--port", str(port)]
    with subprocess.Popen(command, cwd=stack.folder, env=stack.environment) as alone:
        try:
            eventually(lambda: alone.poll() is not None or is_ready(url), seconds=300, every=0.5)
            with gateway_client(url) as client:
                assert [model.id for model in client.models.list()] == ["colours", "colours@1", "things", "things@1"]
        finally:
            alone.terminate()
        assert alone.wait(60) == 0


def runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=10, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def gateway_client(url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)


class Log:
    """The prediction log of a workspace, in its own folder."""

    def __init__(self, folder: Path) -> None:
        self._log = open_log(f"sqlite:///{folder / '.perpetune' / 'predictions.db'}")

    def inputs(self, task: str) -> list[str]:
        return [row.input for row in recent_predictions(self._log, task, limit=None)]

    def close(self) -> None:
        self._log.dispose()
