"""The MLflow run of a refresh or check, with the real MLflow on a SQLite store."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from mlflow.tracking import MlflowClient
from workspaces import write_params

from perpetune.loop.run_context import Kind, data_version_of, open_loop_run
from perpetune.tracking.runs import Run, close_run, connect, tag
from perpetune.workspace import Workspace, open_workspace

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, new_mlflow_store: Callable[[Path], str]) -> str:
    return new_mlflow_store(tmp_path_factory.mktemp("mlflow"))


@pytest.fixture
def workspace(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Workspace:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    connect(store)
    task = request.node.name.replace("_", "-")[:60]
    MlflowClient().create_experiment(task, artifact_location=str(tmp_path / "artifacts"))
    return at(tmp_path / "here", task)


def at(folder: Path, task: str, **train: object) -> Workspace:
    folder.mkdir(exist_ok=True)
    write_params(folder, task={"name": task}, train=train)
    return open_workspace(folder)


def begin(workspace: Workspace, flow_run: str, data: str | None = "data 1", kind: Kind = "refresh") -> Run:
    return open_loop_run(workspace, kind, "manual", "a test", flow_run, data)


def status(run: Run) -> str:
    return str(MlflowClient().get_run(run.id).info.status)


def test_an_interrupted_refresh_is_resumed_by_its_flow_run_and_by_a_new_one(workspace: Workspace) -> None:
    run = begin(workspace, "first")
    assert begin(workspace, "first") == run, "it was killed: nobody closed it"
    close_run(run, succeeded=False)
    assert begin(workspace, "second") == run
    assert status(run) == "RUNNING"
    assert MlflowClient().get_run(run.id).data.tags["prefect.flow_run_id"] == "second"
    close_run(run, succeeded=True)
    assert begin(workspace, "third") != run, "what is finished is finished"


def test_a_schema_is_one_parameter_whatever_its_keys_are_called(workspace: Workspace) -> None:
    schema = {"$defs": {"a": {"type": "string"}}, "type": "object", "properties": {"what? (ü)": {"$ref": "#/$defs/a"}}}
    path = workspace.root / "params.yaml"
    settings = yaml.safe_load(path.read_text())
    settings["task"] |= {"kind": "generation", "output_schema": schema}
    path.write_text(yaml.safe_dump(settings))
    run = begin(open_workspace(workspace.root), "flow 1")
    assert json.loads(MlflowClient().get_run(run.id).data.params["task.output_schema"]) == schema


def test_other_data_or_settings_start_another_run_and_the_interrupted_one_is_killed(workspace: Workspace) -> None:
    run = begin(workspace, "first")
    newer = begin(workspace, "second", "data 2")
    task = workspace.params.task.name
    tuned = begin(at(workspace.root, task, epochs=5), "second", "data 2")
    assert len({run, newer, tuned}) == 3
    assert [status(each) for each in (run, newer, tuned)] == ["KILLED", "KILLED", "RUNNING"]
    assert begin(at(workspace.root, task), "third") == run, "the first data again"


def test_a_run_with_a_decision_is_not_resumed(workspace: Workspace) -> None:
    run = begin(workspace, "first")
    tag(run, {"decision": "promote"})
    close_run(run, succeeded=False)
    assert begin(workspace, "first") != run


def test_a_run_of_another_workspace_is_resumed_only_by_its_flow_run(workspace: Workspace, tmp_path: Path) -> None:
    run = begin(workspace, "first")
    there = at(tmp_path / "there", workspace.params.task.name)
    assert begin(there, "second") != run
    assert status(run) == "RUNNING"
    assert begin(there, "first") == run


def test_each_check_is_a_run_unless_it_is_retried(workspace: Workspace) -> None:
    run = begin(workspace, "first", None, "watch")
    close_run(run, succeeded=False)
    assert begin(workspace, "second", None, "watch") != run
    assert begin(workspace, "first", None, "watch") == run


def test_a_flow_run_keeps_its_data_after_the_first_training_step(workspace: Workspace) -> None:
    run = begin(workspace, "first")
    assert data_version_of(workspace, "first") is None
    workspace.curve(run.id).write_text("a step")
    assert data_version_of(workspace, "first") == "data 1"
    assert data_version_of(workspace, "second") is None
    assert data_version_of(at(workspace.root, workspace.params.task.name, epochs=5), "first") is None
