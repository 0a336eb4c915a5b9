from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from perpetune.cli import app
from perpetune.params import load_params


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def perpetune(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_init_says_what_to_run_next(folder: Path) -> None:
    said = perpetune("init", "My Tickets 2", "--instruction", "Which team?", "--labels", "billing, login")
    assert said.exit_code == 0, said.output
    params = load_params(folder / "My Tickets 2" / "params.yaml")
    assert (params.task.name, params.task.labels) == ("my-tickets-2", ("billing", "login"))
    for command in ("cd 'My Tickets 2'", "ingest FILE", "up", "refresh"):
        assert command in said.output


def test_init_as_json(folder: Path) -> None:
    said = perpetune("init", ".", "--task", "mail", "--instruction", "Spam?", "--json")
    found = json.loads(said.stdout)
    assert found["files"] == ["params.yaml", "dvc.yaml", ".gitignore", ".dvcignore"]
    assert found["next"][0].startswith("git commit")


def test_init_takes_the_current_folder(folder: Path) -> None:
    said = perpetune("init", "--task", "mail", "--instruction", "Spam?")
    assert said.exit_code == 0, said.output
    assert load_params(folder / "params.yaml").task.name == "mail"


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        ((), 2, "there is no terminal to ask on"),
        (("--instruction", "?", "--task", "My Task"), 2, "name: String should match pattern"),
        (("--instruction", "?", "--kind", "regression"), 2, "regression"),
        (("--instruction", "?", "--kind", "generation", "--output-schema", "nowhere.json"), 1, "nowhere.json"),
    ],
)
def test_wrong_usage_and_refusals(arguments: tuple[str, ...], status: int, said: str, folder: Path) -> None:
    result = perpetune("init", "new", *arguments)
    assert result.exit_code == status
    assert said in " ".join(result.output.replace("│", " ").split())
    assert not (folder / "new").exists()


def test_init_asks_a_terminal_for_what_is_missing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perpetune.cli.host.workspace._is_terminal", lambda: True)
    said = CliRunner().invoke(app, ["init", "new"], input="mail\nSpam?\n\nyes,no\n")
    assert said.exit_code == 0, said.output
    task = load_params(folder / "new" / "params.yaml").task
    assert (task.name, task.instruction, task.kind, task.labels) == ("mail", "Spam?", "classification", ("yes", "no"))


def test_params_are_shown_and_upgraded(folder: Path) -> None:
    (folder / "params.yaml").write_text(
        "task: {name: a, kind: generation, instruction: b}\ntrain: {warmup_share: 0.2}\n"
    )
    refused = perpetune("params", "show")
    assert refused.exit_code == 1
    assert "params.yaml:2: train.warmup_share is now called train.warmup_ratio" in refused.stderr
    assert "+train: {warmup_ratio: 0.2}" in perpetune("params", "upgrade", "--dry-run").output
    done = json.loads(perpetune("params", "upgrade", "--json").stdout)
    assert done["renamed"] == {"train.warmup_share": "train.warmup_ratio"}
    assert "is up to date: schema 2" in perpetune("params", "upgrade").output
    assert json.loads(perpetune("params", "show", "--json").stdout)["train"]["warmup_ratio"] == 0.2
    assert "  warmup_ratio: 0.2\n" in perpetune("params", "show").output


def test_download_says_where_the_models_lie(tiny_folder: Path, folder: Path) -> None:
    (folder / "params.yaml").write_text(
        f"task: {{name: a, kind: generation, instruction: b}}\nbase: {{model: 'path:{tiny_folder}'}}\n"
        "evaluate: {encoder: null}\n"
    )
    assert json.loads(perpetune("download", "--json").stdout) == {"base": str(tiny_folder)}
