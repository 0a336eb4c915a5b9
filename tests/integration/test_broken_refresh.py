"""A killed refresh is resumed: retried by Prefect, and started again.

Prefect, MLflow, DVC and the worker are the real ones; the model is a tiny random one.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import psutil
import pytest
import torch
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from waiting import eventually
from workspaces import write_params

from perpetune.curation.ingest import ingest
from perpetune.curation.running.layout import INBOX
from perpetune.loop.curate import read_split
from perpetune.loop.run_context import use_mlflow
from perpetune.model.base import load_base
from perpetune.params import BaseParams
from perpetune.records import Example, write_jsonl
from perpetune.runtime.prefect_api import FlowRun, Prefect
from perpetune.runtime.processes.supervisor import Supervisor, free_ports
from perpetune.runtime.stack import Ports, environment, servers, worker
from perpetune.training.trainer import Progress, train
from perpetune.workspace import Workspace, open_workspace

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
THINGS = {"blue": ("sky", "sea"), "green": ("grass", "leaf"), "red": ("blood", "fire")}
SETTINGS: dict[str, dict[str, object]] = {
    "task": {"name": "colours", "instruction": "which colour is it ?"},
    "fetch": {"sources": ["inbox"]},
    "split": {"frozen": 0.3, "validation": 0.1, "min_train_rows": 5},
    "train": {
        "precision": "fp32",
        "epochs": 20,
        "max_example_tokens": 60,
        "validations": 2,
        "checkpoint_seconds": 0.1,
        "lora": {"rank": 8, "alpha": 16, "dropout": 0.2, "target_modules": "all-linear"},
    },
    "evaluate": {"max_new_tokens": 4, "few_shot_examples": 0, "bootstrap_samples": 200, "encoder": None},
    "promote": {"min_rows": 5, "max_slowdown": None, "max_cost": None},
    "label_errors": {"action": "off"},
    "watch": {"cron": "0 0 29 2 *"},  # a scheduled check would be another run
}
STEPS_BEFORE_A_KILL = 15


def questions() -> list[Example]:
    """Differently worded questions for the colours of things."""
    openings, endings = (
        ("say", "is it", "which is", "a", "the", "see the"),
        ("?", "there ?", "now ?", "again ?", "then ?"),
    )
    return [
        Example(
            input=f"{opening} {thing} {ending}", output=colour, id=f"{n}-{thing}", group=f"{n}-{thing}", source="test"
        )
        for colour, things in THINGS.items()
        for n, (opening, thing, ending) in enumerate(product(openings, things, endings))
    ]


@dataclass(frozen=True)
class World:
    workspace: Workspace
    prefect: Prefect
    worker: psutil.Process

    def start(self) -> FlowRun:
        return self.prefect.start("refresh/colours", {"trigger": "manual"})

    def retry(self, run: FlowRun) -> None:
        """Start a refresh manually."""
        subprocess.run([sys.executable, "-m", "prefect", "flow-run", "retry", run.id], check=True)

    def kill_in_training(self, run: FlowRun) -> None:
        """Wait until it has trained some steps more than there are, then kill -9 every process of the flow run."""
        enough = self.steps_made() + STEPS_BEFORE_A_KILL
        eventually(lambda: self.steps_made() >= enough or self.prefect.check(run).final, 120)
        assert not self.prefect.check(run).final, self.prefect.check(run).message
        for process in self.worker.children(recursive=True):
            process.send_signal(signal.SIGKILL)
        eventually(lambda: self.prefect.check(run).state == "CRASHED", 120)

    def steps_made(self) -> int:
        return sum(path.read_text().count("\n") for path in self.workspace.home.glob("runs/*/curve.jsonl"))

    def runs(self) -> list[Run]:
        experiment = MlflowClient().get_experiment_by_name("colours")
        assert experiment is not None
        return list(MlflowClient().search_runs([experiment.experiment_id]))


@pytest.fixture
def world(tmp_path: Path, tiny_params: BaseParams, seed_servers: Callable[..., None]) -> Iterator[World]:
    write_params(tmp_path, **SETTINGS, base=tiny_params.model_dump())
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    old = dict(os.environ)
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        ports = Ports(*free_ports(4))
        workspace = open_workspace(tmp_path)
        os.environ |= environment(workspace, ports)
        seed_servers(workspace)
        with Supervisor(tmp_path, workspace.home / "logs", os.environ, print) as supervisor:
            supervisor.start(servers(workspace, ports))
            supervisor.start([worker(ports.worker)])
            workspace = open_workspace(tmp_path)
            use_mlflow(workspace)
            runner = psutil.Process(supervisor.children[-1].process.pid)
            yield World(workspace, Prefect(str(workspace.settings.prefect_api_url)), runner)
    finally:
        os.environ.clear()
        os.environ |= old


@pytest.mark.integration
@pytest.mark.timeout(600)
def test_a_killed_refresh_resumes_in_the_same_run(world: World, tiny_params: BaseParams, tmp_path: Path) -> None:
    inbox = world.workspace.root / INBOX
    write_jsonl(tmp_path / "start.jsonl", questions()[:-1])
    ingest(tmp_path / "start.jsonl", inbox)
    assert world.worker.nice() == max(10, psutil.Process().nice()), "training must give way to requests"
    first = world.start()
    world.kill_in_training(first)

    write_jsonl(tmp_path / "late.jsonl", questions()[-1:])
    late = ingest(tmp_path / "late.jsonl", inbox).path
    world.retry(first)
    world.kill_in_training(first)
    (begun,) = world.runs()
    assert begun.info.status == "RUNNING"
    assert begun.data.tags["prefect.flow_run_id"] == first.id

    assert late is not None
    late.unlink()
    ended = world.prefect.follow(second := world.start(), print)
    assert ended.state == "COMPLETED", ended.message

    (run,) = world.runs()
    assert (run.info.run_id, run.info.status) == (begun.info.run_id, "FINISHED")
    assert run.data.tags["prefect.flow_run_id"] == second.id
    digest, losses = unbroken(world.workspace, tiny_params, tmp_path / "unbroken")
    drawn = MlflowClient().get_metric_history(run.info.run_id, "train/loss")
    assert [(point.step, point.value) for point in drawn] == [*enumerate(losses, start=1)]
    assert run.data.tags["adapter.digest"] == digest


def unbroken(workspace: Workspace, base: BaseParams, folder: Path) -> tuple[str, list[float]]:
    """The adapter's digest and the losses of an uninterrupted run."""
    torch.set_num_threads(1)
    losses: list[float] = []

    def report(progress: Progress) -> None:
        losses.append(progress.loss)

    rows, validation = read_split(workspace, "train"), read_split(workspace, "validation")
    params, instruction = workspace.params.train, workspace.params.task.instruction
    labels = workspace.params.head_labels(row.output for row in rows)
    trained = train(
        load_base(base, folder, "fp32"), rows, validation, instruction, params, folder, report, labels=labels
    )
    return trained.digest, losses
