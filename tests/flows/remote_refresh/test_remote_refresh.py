"""A refresh in steps on a copy of the workspace: the compiled pipeline, and its commands run on this machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import chdir
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from flows_here import send_what_is_left
from mlflow.tracking import MlflowClient
from prefect.settings import PREFECT_API_URL, temporary_settings
from workspaces import write_params

from perpetune.curation.ingest import ingest
from perpetune.curation.running.layout import INBOX
from perpetune.errors import PerpetuneError
from perpetune.flows.remote_refresh.client import refresh_remotely, require_reachable_servers
from perpetune.flows.remote_refresh.container import main, read_outcome
from perpetune.flows.remote_refresh.copied_workspace import bring, fetch, read_manifest, send
from perpetune.flows.remote_refresh.pipeline import RefreshPipeline
from perpetune.flows.remote_refresh.steps import STEPS, command
from perpetune.flows.remote_training.kubeflow import Kubeflow
from perpetune.records import Example, write_jsonl
from perpetune.runtime.processes.supervisor import Supervisor, free_ports
from perpetune.runtime.stack import Ports, environment, servers
from perpetune.tracking import registry
from perpetune.tracking.runs import connect
from perpetune.training.remote.store import JobStore
from perpetune.workspace import open_workspace

ROOT = Path(__file__).parents[3]
IMAGE = "registry.example/perpetune:1"
ADDRESS = "{{$.inputs.parameters['address']}}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "workspace"
    for name in ("params.yaml", "data/rows.jsonl", ".dvc/cache/ab", ".perpetune/runs/1/trained.json", ".env", ".git/x"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    (root / ".perpetune/predictions.db").write_text("the log")
    return root


@pytest.fixture
def store(tmp_path: Path) -> JobStore:
    return JobStore(f"file://{tmp_path}/store")


def test_the_copy_has_the_state_and_no_secrets(folder: Path, store: JobStore, tmp_path: Path) -> None:
    send(folder, store)
    fetch(store, tmp_path / "copy")
    found = {
        path.relative_to(tmp_path / "copy").as_posix() for path in (tmp_path / "copy").rglob("*") if path.is_file()
    }
    assert found == {"params.yaml", "data/rows.jsonl", ".dvc/cache/ab", ".perpetune/runs/1/trained.json"}


def test_changes_come_back_unless_both_changed_a_file(folder: Path, store: JobStore, tmp_path: Path) -> None:
    send(folder, store)
    sent = read_manifest(store)
    (tmp_path / "copy").mkdir()
    fetch(store, tmp_path / "copy")
    (tmp_path / "copy/dvc.lock").write_text("new data")
    (tmp_path / "copy/params.yaml").write_text("of the copy")
    send(tmp_path / "copy", store)
    (folder / ".perpetune/runs/1/drift.html").write_text("of a check here")
    (folder / "params.yaml").write_text("of a person")
    with pytest.raises(PerpetuneError, match=r"the workspace changed while a copy of it was refreshed: params\.yaml"):
        bring(store, folder, sent)
    assert not (folder / "dvc.lock").exists()
    (folder / "params.yaml").write_text("params.yaml")
    bring(store, folder, sent)
    assert (folder / "dvc.lock").read_text() == "new data"
    assert (folder / "params.yaml").read_text() == "of the copy"
    assert (folder / ".perpetune/runs/1/drift.html").exists()


def test_a_damaged_copy_and_one_that_leaves_its_folder_are_refused(
    folder: Path, store: JobStore, tmp_path: Path
) -> None:
    send(folder, store)
    store.write("workspace/params.yaml", b"other")
    with pytest.raises(PerpetuneError, match="a file of the copy is damaged"):
        fetch(store, tmp_path / "copy")
    store.write("manifest.json", json.dumps({"../escaped": "0"}).encode())
    with pytest.raises(PerpetuneError, match="names a file outside the workspace"):
        fetch(store, tmp_path / "other")


def test_servers_of_this_machine_alone_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_params(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "PREFECT_API_URL", "PERPETUNE_DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    servers = {
        "MLFLOW_TRACKING_URI": "http://mlflow:5000",
        "PREFECT_API_URL": "http://prefect:4200/api",
        "PERPETUNE_DATABASE_URL": "postgresql://postgres/perpetune",
    }
    for name, value in servers.items():
        with pytest.raises(PerpetuneError, match=name):
            require_reachable_servers(open_workspace(tmp_path))
        monkeypatch.setenv(name, value)
    require_reachable_servers(open_workspace(tmp_path))


def compiled(folder: Path) -> dict[str, Any]:
    pytest.importorskip("kfp", reason="kfp is not installed: `make test-clouds`")
    pipeline = RefreshPipeline(Kubeflow(image=IMAGE, gpus=2, environment={"HF_HOME": "/tmp/hf"}))
    pipeline.compile(folder / "pipeline.yaml")
    return dict(yaml.safe_load((folder / "pipeline.yaml").read_text()))


@pytest.mark.slow
def test_the_pipeline_has_the_steps_of_the_flow_in_order(tmp_path: Path) -> None:
    pipeline = compiled(tmp_path)
    executors, tasks = pipeline["deploymentSpec"]["executors"], pipeline["root"]["dag"]["tasks"]
    assert list(tasks) == sorted(step.name for step in STEPS)
    for step, before in zip(STEPS, (None, *STEPS), strict=False):
        container = executors[f"exec-{step.name}"]["container"]
        assert container["image"] == IMAGE
        assert [*container["command"], *container["args"]] == command(step, ADDRESS)
        assert ("accelerator" in container["resources"]) == step.computes, "GPUs are held while they compute"
        assert tasks[step.name].get("dependentTasks") == (None if before is None else [before.name])


@pytest.mark.slow
def test_the_pipeline_is_valid_by_kfps_own_specification(tmp_path: Path) -> None:
    pipeline = compiled(tmp_path)
    json_format = pytest.importorskip("google.protobuf.json_format")
    pipeline_spec_pb2 = pytest.importorskip("kfp.pipeline_spec.pipeline_spec_pb2")
    spec = json_format.ParseDict(pipeline, pipeline_spec_pb2.PipelineSpec())
    assert spec.pipeline_info.name == "perpetune-refresh"
    with pytest.raises(json_format.ParseError):
        json_format.ParseDict({**pipeline, "roots": {}}, pipeline_spec_pb2.PipelineSpec())


QUESTIONS = {
    "billing": ("invoice", "refund", "card payment"),
    "technical": ("screen", "keyboard", "battery"),
}
OPENINGS = ("Hello, my", "Please help: the", "Since Monday our", "I have a problem, the", "What about the", "Again the")
ENDINGS = ("is wrong", "never came", "is not right any more")


def rows() -> list[Example]:
    """Questions for two desks, worded differently enough that no two are near duplicates."""
    return [
        Example(input=f"{' '.join(words)}.", output=desk, id=f"{desk}-{n}", group=f"{desk}-{n}", source="test")
        for desk, things in QUESTIONS.items()
        for n, words in enumerate(product(OPENINGS, things, ENDINGS))
    ]


@pytest.mark.slow
@pytest.mark.integration
@pytest.mark.timeout(900)
def test_the_commands_of_the_steps_make_and_promote_a_version(
    tmp_path: Path,
    store: JobStore,
    random_model: Callable[..., Path],
    new_mlflow_store: Callable[[Path], str],
    seed_servers: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each command once, outside a container, with a tiny model. Each has a scratch folder of its own, as on another machine.

    The second is called in this process, which has what it imports.
    """
    instruction = "Which desk answers this question?"
    text = " ".join([instruction, *(f"{row.input} {row.output}" for row in rows())])
    base = random_model(tmp_path / "base", sorted({*text.split(), "system", "user", "assistant"}), 256)
    root = tmp_path / "workspace"
    root.mkdir()
    write_params(
        root,
        task={"name": "desk", "instruction": instruction, "new_labels": True},
        base={"model": f"path:{base}", "revision": None},
        fetch={"sources": ["inbox"]},
        reference={"min_recent": 15},
        split={"frozen": 0.3, "validation": 0.1, "recent": 0.4},
        train={"precision": "fp32", "epochs": 2.0, "learning_rate": 3e-3},
        evaluate={
            "max_new_tokens": 8,
            "few_shot_examples": 0,
            "batch_tokens": 512,
            "bootstrap_samples": 100,
            "encoder": None,
        },
        promote={"margin": 0.2, "min_rows": 10, "max_slowdown": None, "max_cost": None},
        label_errors={"action": "off"},
        private={"mode": "off"},
    )
    shutil.copy(ROOT / "dvc.yaml", root)
    write_jsonl(tmp_path / "rows.jsonl", rows())
    ingest(tmp_path / "rows.jsonl", root / INBOX)
    variables = {
        "MLFLOW_TRACKING_URI": new_mlflow_store(tmp_path),
        "PERPETUNE_DATABASE_URL": f"sqlite:///{tmp_path}/predictions.db",
        "PERPETUNE_ASSETS": str(ROOT / "assets"),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        "PYTHONSAFEPATH": "1",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    connect(variables["MLFLOW_TRACKING_URI"])
    experiment = MlflowClient().create_experiment("desk", artifact_location=str(tmp_path / "artifacts"))

    send(root, store)
    sent = read_manifest(store)
    ports = Ports(*free_ports(4))
    opened = open_workspace(root)
    variables = environment(opened, ports)
    seed_servers(opened, "prefect")
    with Supervisor(root, opened.home / "logs", variables, print) as supervisor:
        supervisor.start(servers(opened, ports))
        monkeypatch.setenv("PREFECT_API_URL", variables["PREFECT_API_URL"])
        curate, train, evaluate = (command(step, store.address) for step in STEPS)
        assert run(curate) == "curated"
        with chdir("/"), temporary_settings({PREFECT_API_URL: variables["PREFECT_API_URL"]}):
            assert main(train[-2:]) == 0
            send_what_is_left()
            assert capsys.readouterr().out.split()[-1] == "trained"
        said = run(evaluate)
        assert said in {"promote", "reject"}
        assert run(curate) == said, "a pipeline that is tried again does nothing that is done"
    bring(store, root, sent)
    assert (root / "dvc.lock").is_file()
    runs = MlflowClient().search_runs([experiment])
    refreshes = [each for each in runs if each.data.tags.get("perpetune.kind") == "refresh"]
    [logged] = refreshes
    assert (logged.info.status, logged.data.tags["decision"]) == ("FINISHED", said)
    assert len(registry.versions("desk")) >= 1
    outcome = read_outcome(store)
    assert outcome is not None and outcome["outcome"] == said


def run(words: list[str]) -> str:
    """The last word that the command of a container prints, run by the Python of this process in no workspace."""
    done = subprocess.run([sys.executable, *words[1:]], cwd="/", capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, (words, done.stdout[-3000:], done.stderr[-3000:])
    return done.stdout.split()[-1]


class Ended:
    """A service whose pipeline ends at once."""

    def start(self, address: str) -> str:
        return "run 1"

    def why_ended(self, job: str) -> str | None:
        return "FAILED: no node has a GPU"

    def stop(self, job: str) -> None:
        raise AssertionError("it has ended")


def test_a_pipeline_that_ends_early_is_said_and_its_copy_deleted(
    tmp_path: Path, store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "here"
    root.mkdir()
    write_params(root)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    monkeypatch.setenv("PREFECT_API_URL", "http://prefect:4200/api")
    monkeypatch.setenv("PERPETUNE_DATABASE_URL", "postgresql://postgres/perpetune")
    with pytest.raises(PerpetuneError, match="ended without an outcome: FAILED: no node has a GPU"):
        refresh_remotely(open_workspace(root), store, Ended())
    assert not list((tmp_path / "store").rglob("params.yaml"))
