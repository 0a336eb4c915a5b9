from __future__ import annotations

import json
import shutil
import socket
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner, Result

from perpetune.cli import app

ROOT = Path(__file__).parents[3]


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI", "PERPETUNE_HOME", "PERPETUNE_DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def perpetune(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_the_version_is_that_of_the_package() -> None:
    stated = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert perpetune("--version").output.strip() == f"perpetune {stated}"


def paths(group: Any) -> Iterator[tuple[str, ...]]:
    """The words of each command."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from ((name, *inner) for inner in paths(command))
        else:
            yield (name,)


COMMANDS = list(paths(get_command(app)))


def test_the_commands_that_people_know_are_there() -> None:
    known = "init download demo up ingest refresh tune watch status explain reproduce promote approve rollback labels replay calibrate"
    assert {(name,) for name in known.split()} | {("data", "remove"), ("keys", "add"), ("import", "openai")} <= set(
        COMMANDS
    )


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_an_example(command: tuple[str, ...]) -> None:
    shown = perpetune(*command, "--help")
    assert shown.exit_code == 0
    assert f"perpetune {' '.join(command)}" in shown.output


def test_ingest_says_what_it_brought_and_what_it_set_aside(workspace: Path) -> None:
    rows = ['{"input": "a", "output": "x"}', "{broken", '{"input": "b"}', '{"input": "c", "output": "y"}']
    (workspace / "my.jsonl").write_text("\n".join(rows))
    said = perpetune("ingest", "my.jsonl")
    assert said.exit_code == 0
    assert "2 examples in data/inbox/" in said.output
    assert "2 rows quarantined" in said.output
    assert "line 2:" in said.output
    assert "set `fetch: {sources: [inbox, traffic]}`" in said.output, "the demo's task reads the bundled reviews"
    again = json.loads(perpetune("ingest", "my.jsonl", "--json").stdout)
    assert (again["examples"], again["rejected"], again["repeated"]) == (2, 2, True)


def test_outside_a_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said = perpetune("status")
    assert said.exit_code == 1
    assert "params.yaml: there is no such file" in said.stderr


def test_a_wrong_setting_is_found_before_anything_starts(workspace: Path) -> None:
    text = (workspace / "params.yaml").read_text()
    (workspace / "params.yaml").write_text(text.replace("  epochs: auto", "  epochs: many"))
    said = perpetune("up")
    line = [line.startswith("  epochs: auto") for line in text.splitlines()].index(True) + 1
    assert said.exit_code == 1
    assert f"params.yaml:{line}: train.epochs" in said.stderr
    assert not (workspace / ".perpetune").exists()


def test_a_port_in_use(workspace: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = perpetune("up", "--prefect-port", str(port))
    assert said.exit_code == 1
    assert f"port {port}, meant for prefect, is in use" in said.stderr


def test_dead_servers(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    for command, dead in (("status", "the MLflow server"), ("refresh", "the Prefect server")):
        said = perpetune(command)
        assert said.exit_code == 1
        assert f"{dead} does not answer at http://127.0.0.1:9" in said.stderr


def test_the_demo_spares_a_folder_that_no_demo_made(workspace: Path) -> None:
    (workspace / "demo").mkdir()
    (workspace / "demo" / "thesis.txt").write_text("years of work")
    said = perpetune("demo")
    assert said.exit_code == 1
    assert "this folder is not empty, and no demo made it" in said.stderr
    assert (workspace / "demo" / "thesis.txt").read_text() == "years of work"
