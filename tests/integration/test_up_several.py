"""`perpetune up` of a workspace that serves another one too: one gateway, one Prefect, one MLflow, a worker for each."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import httpx
import openai
import pytest
from waiting import eventually
from workspaces import write_params

from perpetune.prediction_log.database import open_log
from perpetune.prediction_log.queries import recent_predictions
from perpetune.runtime.addresses import ADDRESSES
from perpetune.runtime.processes import free_ports
from perpetune.workspace import open_workspace

pytestmark = [pytest.mark.slow, pytest.mark.integration, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-c", "from perpetune.cli import app; app()")
SERVICES = ("prefect", "mlflow", "gateway", "worker")
TASKS = ("colours", "things")


@dataclass(frozen=True)
class Stack:
    root: Path
    process: subprocess.Popen[bytes]
    url: str
    environment: dict[str, str]

    def perpetune(self, task: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *arguments],
            cwd=self.root / task,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=300,
        )

    @property
    def said(self) -> str:
        return (self.root / "out.txt").read_text()


@pytest.fixture(scope="module")
def stack(
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
    named = ("PREFECT_", "MLFLOW_", "PERPETUNE_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(named)}
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment |= {"PYTHONPATH": path, "PERPETUNE_ASSETS": str(ROOT / "assets")}
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PERPETUNE_HOME", raising=False)
        seed_servers(open_workspace(root / TASKS[0]))
    ports = dict(zip(SERVICES, free_ports(4), strict=True))
    options = [word for name, port in ports.items() for word in (f"--{name}-port", str(port))]
    added = subprocess.run([*COMMAND, "serve", "add", "../things"], cwd=root / "colours", env=environment, check=False)
    assert added.returncode == 0
    with (root / "out.txt").open("wb") as out:
        process = subprocess.Popen(
            [*COMMAND, "up", *options], cwd=root / "colours", env=environment, stdout=out, stderr=out
        )
    stack = Stack(root, process, f"http://127.0.0.1:{ports['gateway']}", environment)
    try:
        eventually(lambda: process.poll() is not None or "ready" in stack.said, seconds=400)
        assert process.poll() is None, stack.said
        eventually(lambda: httpx.get(f"{stack.url}/readyz", timeout=10, trust_env=False).status_code == 200)
        yield stack
    finally:
        process.terminate()
        process.wait(60)


def test_both_answer_and_are_logged_where_they_live(stack: Stack) -> None:
    assert "worker-things: started" in stack.said
    with openai.OpenAI(base_url=f"{stack.url}/v1", api_key="none", max_retries=0) as client:
        ids = {}
        for task in TASKS:
            for number in range(3):
                said = client.chat.completions.create(
                    model=task, messages=[{"role": "user", "content": f"{task} {number}"}]
                )
                assert said.model == f"{task}@1"
                ids[task] = said.id
    rows = [{"request_id": ids[task], "score": 1} for task in TASKS]
    assert httpx.post(f"{stack.url}/v1/feedback", json=rows, timeout=10, trust_env=False).json()["recorded"] == 2

    def logged(task: str) -> list[str]:
        with closing(_Log(stack.root / task)) as log:
            return sorted(log.inputs(task))

    for task in TASKS:
        assert eventually(lambda task=task: (found := logged(task)) and len(found) == 3 and found) == [  # type: ignore[misc]
            f"{task} {number}" for number in range(3)
        ]


def test_both_are_watched_where_they_live(stack: Stack) -> None:
    for task in TASKS:
        watch = stack.perpetune(task, "watch")
        assert watch.returncode == 0, watch.stdout + watch.stderr
    status = stack.perpetune("things", "status")
    assert status.returncode == 0, status.stderr
    assert "the gateway serves it" in status.stdout and "3 predictions" in status.stdout, status.stdout


def test_a_second_stack_for_the_served_one_is_refused(stack: Stack) -> None:
    done = stack.perpetune("things", "up")
    assert done.returncode == 1
    assert f"`perpetune up` already runs here as process {stack.process.pid}" in done.stderr


def test_what_one_stack_serves_ends_with_it_and_the_gateway_runs_alone(stack: Stack) -> None:
    """The last test: afterwards nothing runs."""
    stack.process.send_signal(signal.SIGTERM)
    assert stack.process.wait(60) == 0
    for task in TASKS:
        assert not (stack.root / task / ".perpetune" / ADDRESSES).exists()
    [port] = free_ports(1)
    command = [*COMMAND, "serve", "--port", str(port)]
    with subprocess.Popen(command, cwd=stack.root / "colours", env=stack.environment) as alone:
        try:
            eventually(lambda: alone.poll() is not None or _is_ready(port), seconds=300)
            with openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none") as client:
                assert [model.id for model in client.models.list()] == ["colours", "colours@1", "things", "things@1"]
        finally:
            alone.terminate()
        assert alone.wait(60) == 0


def _is_ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=10, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


class _Log:
    """The prediction log of a workspace, in its own folder."""

    def __init__(self, folder: Path) -> None:
        self._log = open_log(f"sqlite:///{folder / '.perpetune' / 'predictions.db'}")

    def inputs(self, task: str) -> list[str]:
        return [row.input for row in recent_predictions(self._log, task, limit=None)]

    def close(self) -> None:
        self._log.dispose()
