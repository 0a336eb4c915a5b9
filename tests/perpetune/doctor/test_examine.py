from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

import pytest
from workspaces import ROOT, write_params

from perpetune.curation.running.dvc import prepare
from perpetune.doctor import host
from perpetune.doctor.examine import examine
from perpetune.doctor.finding import Finding
from perpetune.runtime.served.registered import register
from perpetune.workspace import open_workspace


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def findings(folder: Path) -> dict[str, Finding]:
    return {each.subject: each for each in examine(folder)}


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)  # of a store that tests of this process share
    write_params(tmp_path)
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    return tmp_path


def test_settings_that_are_wrong_end_it_with_the_field(workspace: Path) -> None:
    file = workspace / "params.yaml"
    file.write_text(file.read_text().replace("margin: ", "margin: -", 1))
    *_, last = examine(workspace)
    assert (last.subject, last.level) == ("settings", "fault")
    assert "margin" in last.what


def test_a_workspace_without_data_is_warned_of_and_has_no_fault(workspace: Path) -> None:
    found = findings(workspace)
    assert found["data"].level == "warning"
    assert found["Prefect"].level == "not checked"
    assert found["champion"].level == "not checked"
    assert [each for each in found.values() if each.level == "fault"] == []


def test_a_remote_in_the_workspace_is_warned_of_and_one_elsewhere_is_well(workspace: Path) -> None:
    prepare(workspace, None)
    assert findings(workspace)["DVC remote perpetune"].level == "warning"
    prepare(workspace, str(workspace.parent / "elsewhere"))
    assert findings(workspace)["DVC remote perpetune"].level == "ok"


def test_a_remote_whose_store_cannot_be_opened_is_a_fault(workspace: Path) -> None:
    prepare(workspace, "nosuchscheme://bucket/path")
    found = [each for each in examine(workspace) if each.subject.startswith("DVC remote")]
    assert [each.level for each in found] == ["fault"]


def test_a_prediction_log_that_cannot_be_opened_is_a_fault(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERPETUNE_DATABASE_URL", "postgresql://me:PASSWORD@127.0.0.1:1/nothing")
    found = findings(workspace)["prediction log"]
    assert found.level == "fault"
    assert "PASSWORD" not in found.what


@pytest.mark.parametrize(("free", "level"), [(5e8, "fault"), (3e9, "warning"), (5e10, "ok")])
def test_disk(workspace: Path, monkeypatch: pytest.MonkeyPatch, free: float, level: str) -> None:
    monkeypatch.setattr("perpetune.doctor.host.shutil.disk_usage", lambda _: Usage(0, 0, int(free)))
    assert host.disk(open_workspace(workspace)).level == level


def test_packages_of_another_version_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    needed = ["rich>=999", "nosuchpackage", 'onlyextra>=1; extra == "ray"', "httpx"]
    monkeypatch.setattr("perpetune.doctor.host.requires", lambda _: needed)
    found = host.packages()
    assert found.level == "fault"
    assert "rich>=999 is needed" in found.what
    assert "nosuchpackage is not installed" in found.what
    assert "onlyextra" not in found.what


def test_the_installed_packages_fit() -> None:
    assert host.packages().level == "ok"


def test_served_workspaces_are_looked_at(workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    assert "served tasks" not in findings(workspace)
    other = tmp_path_factory.mktemp("intents")
    write_params(other, task={"name": "intents"})
    register(open_workspace(workspace), other)
    found = findings(workspace)["served tasks"]
    assert (found.level, "reviews, intents share" in found.what) == ("ok", True)
    (other / "params.yaml").unlink()
    gone = findings(workspace)["served tasks"]
    assert gone.level == "fault"
    assert "perpetune serve remove" in gone.do
