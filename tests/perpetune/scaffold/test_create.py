from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from perpetune.curation.running import dvc
from perpetune.errors import PerpetuneError
from perpetune.params import Params, load_params
from perpetune.scaffold.create import Task, create, template

ROOT = Path(__file__).parents[3]
TASK = Task("tickets", "Which team?")


@pytest.mark.slow
def test_a_new_workspace_curates_what_is_ingested(tmp_path: Path) -> None:
    done = create(tmp_path / "tickets", TASK)
    assert done.git == "made"
    inbox = done.folder / "data" / "inbox"
    inbox.mkdir(parents=True)
    rows = [{"input": f"text {n}", "output": "yes" if n % 2 else "no"} for n in range(80)]
    (inbox / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert dvc.reproduce(done.folder).version
    status = subprocess.run(
        ["git", "status", "--short"], cwd=done.folder, check=True, capture_output=True, text=True
    ).stdout.split()
    assert sorted(status[1::2]) == [
        ".dvc/.gitignore",
        ".dvc/config",
        ".dvcignore",
        ".gitignore",
        "dvc.lock",
        "dvc.yaml",
        "params.yaml",
    ], "all but data and caches is there to commit"


@pytest.mark.parametrize(
    "task",
    [
        TASK,
        Task("a", "Say: \"yes\", or 'no'? # really: {x}", labels=("yes", "no", "null", "7", "a, b")),
        Task("a", "first line\nsecond line", kind="generation"),
    ],
)
def test_what_was_asked_for_is_read_back(task: Task, tmp_path: Path) -> None:
    params = load_params(create(tmp_path / "new", task).folder / "params.yaml")
    assert (params.task.name, params.task.kind, params.task.instruction) == (task.name, task.kind, task.instruction)
    assert params.task.labels == (task.labels or None)
    assert params == Params(task=params.task), "what the file says besides are the defaults"


def test_a_schema_comes_along(tmp_path: Path) -> None:
    schema = tmp_path / "mine.json"
    schema.write_text('{"type": "object", "properties": {"name": {"type": "string"}}}')
    done = create(tmp_path / "new", Task("people", "Who?", kind="generation", output_schema=schema))
    assert load_params(done.folder / "params.yaml").task.output_schema == json.loads(schema.read_text())
    assert "output_schema.json" in done.files


def test_a_clone_of_an_empty_repository_is_room_enough(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    (tmp_path / ".venv").mkdir()
    assert create(tmp_path, TASK).git == "found"


@pytest.mark.parametrize(
    ("name", "said"), [("params.yaml", "a workspace already"), ("thesis.txt", "not empty: it has thesis.txt")]
)
def test_nothing_is_overwritten(name: str, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("years of work")
    with pytest.raises(PerpetuneError, match=said):
        create(tmp_path, TASK)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "years of work")]


@pytest.mark.parametrize(
    "task",
    [Task("Tickets", "?"), Task("a", "?", kind="regression"), Task("a", "?", kind="generation", labels=("x",))],
)
def test_a_task_that_is_wrong_leaves_no_folder(task: Task, tmp_path: Path) -> None:
    with pytest.raises(PerpetuneError):
        create(tmp_path / "new", task)
    assert not (tmp_path / "new").exists()


def test_the_pipeline_of_the_repository_is_that_of_every_workspace() -> None:
    assert template("dvc.yaml") == (ROOT / "dvc.yaml").read_text()
    assert yaml.safe_load(template("dvc.yaml"))["stages"]
