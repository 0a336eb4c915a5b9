"""deploy/ray/launch.py on a Ray cluster of two machines, both simulated here. Ray is no dependency: skipped without."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from perpetune.errors import PerpetuneError
from perpetune.params import TrainParams
from perpetune.records import Example
from perpetune.training.job_files import Job
from perpetune.training.launch import launch
from perpetune.training.trainer import Progress, Trained

pytest.importorskip("ray", reason="Ray is not installed: .venv/bin/pip install -c requirements.lock ray")
pytestmark = [pytest.mark.integration, pytest.mark.timeout(600), pytest.mark.slow]

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, str(ROOT / "deploy" / "ray" / "launch.py"), "--nodes", "2", "--gpus-per-node", "0"]
LAUNCHER = " ".join(COMMAND)
SMALL = {"num_cpus": 2, "object_store_memory": 200 << 20}


@pytest.fixture(scope="module", params=["a member of the cluster", "a client outside of it"])
def cluster(request: pytest.FixtureRequest) -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    from perpetune.runtime.processes.supervisor import free_ports

    (port,) = free_ports(1)
    outside = "outside" in request.param
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
        head = SMALL | {"include_dashboard": False} | ({"ray_client_server_port": port} if outside else {})
        two = Cluster(initialize_head=True, head_node_args=head)
        two.add_node(**SMALL)
        two.wait_for_nodes()
        patch.setenv("RAY_ADDRESS", f"ray://127.0.0.1:{port}" if outside else two.address)
        yield two
        two.shutdown()


def run(job: Job, rows: list[Example], launcher: str | None = None) -> tuple[Trained, list[Progress]]:
    seen: list[Progress] = []
    return launch(job, rows, rows, seen.append, launcher), seen


@pytest.mark.usefixtures("cluster")
def test_the_loss_curve_is_that_of_one_process(
    colour_job: Callable[[TrainParams, Path], Job],
    train_params: TrainParams,
    colour_rows: list[Example],
    tmp_path: Path,
) -> None:
    params = train_params.model_copy(update={"epochs": 4.0, "learning_rate": 1e-3})
    one, alone = run(colour_job(params, tmp_path / "one"), colour_rows)
    two, together = run(colour_job(params, tmp_path / "two"), colour_rows, LAUNCHER)

    assert [step.loss for step in together] == pytest.approx([step.loss for step in alone], rel=1e-4)
    assert two.validation_loss == pytest.approx(one.validation_loss, rel=1e-4)
    assert (two.steps, two.best_step, two.tokens) == (one.steps, one.best_step, one.tokens)


@pytest.mark.usefixtures("cluster")
def test_an_error_of_a_process_is_raised_unchanged(
    colour_job: Callable[[TrainParams, Path], Job],
    train_params: TrainParams,
    colour_rows: list[Example],
    tmp_path: Path,
) -> None:
    params = train_params.model_copy(update={"max_example_tokens": 1})
    with pytest.raises(PerpetuneError, match="all 6 training examples are longer than 1 tokens"):
        run(colour_job(params, tmp_path), colour_rows, LAUNCHER)


@pytest.mark.usefixtures("cluster")
def test_one_that_fails_stops_the_other(tmp_path: Path) -> None:
    (tmp_path / "odd.py").write_text(
        "import os, sys, time\nif os.environ['RANK'] == '1': sys.exit('no such disk')\nprint('here', flush=True)\ntime.sleep(300)"
    )
    began = time.monotonic()
    done = subprocess.run([*COMMAND, str(tmp_path / "odd.py")], capture_output=True, text=True)
    assert done.returncode == 1
    assert "no such disk" in done.stderr
    assert time.monotonic() - began < 90
    assert running(tmp_path) == []


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_all_end_with_the_launcher(tmp_path: Path, how: signal.Signals) -> None:
    (tmp_path / "long.py").write_text("import time\nprint('here', flush=True)\ntime.sleep(300)")
    with subprocess.Popen([*COMMAND, str(tmp_path / "long.py")], stdout=subprocess.PIPE, text=True) as launcher:
        assert launcher.stdout is not None
        assert [launcher.stdout.readline(), launcher.stdout.readline()] == ["here\n", "here\n"]
        assert len(running(tmp_path)) >= 4, "an agent and a process on each machine"
        launcher.send_signal(how)
    deadline = time.monotonic() + 90
    while running(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert running(tmp_path) == []


@pytest.mark.usefixtures("cluster")
def test_a_cluster_that_is_too_small_is_an_error() -> None:
    command = [*COMMAND[:2], "--nodes", "3", "--gpus-per-node", "0", "--wait-seconds", "3", "-m", "this"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "no 3 machines with 0 free GPUs each in the Ray cluster within 3 s" in done.stderr


def running(folder: Path) -> list[int]:
    """Processes that run something of the folder."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        words = process.info["cmdline"] or []
        if process.info["status"] != psutil.STATUS_ZOMBIE and any(str(folder) in word for word in words):
            found.append(process.pid)
    return [pid for pid in found if pid != os.getpid()]
