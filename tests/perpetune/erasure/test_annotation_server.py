"""Erasure in Label Studio: a real server, skipped unless `make label-studio` was run; and one that does not answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import perpetune
from label_studio_server import RunningLabelStudio, is_installed, label_studio
from workspaces import write_params

from perpetune.annotation.projects import PROJECTS
from perpetune.runtime.processes.supervisor import free_ports

pytestmark = [pytest.mark.slow, pytest.mark.integration, pytest.mark.timeout(600)]

MARKER = "Quincy Zanzibarson"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningLabelStudio]:
    if not is_installed():
        pytest.skip("Label Studio is not installed: `make label-studio`")
    with label_studio(tmp_path_factory.mktemp("label-studio")) as running:
        yield running


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("PERPETUNE_HOME", "PERPETUNE_DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    write_params(tmp_path, task={"name": "tickets", "kind": "generation", "labels": None}, fetch={"sources": ["inbox"]})
    texts = [f"Bill {n} of {MARKER if n % 2 else 'somebody'} is wrong" for n in range(6)]
    rows = [{"id": f"t{n}", "input": text, "output": "A clerk looks at it."} for n, text in enumerate(texts)]
    (tmp_path / "tickets.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    new = [{"id": f"n{n}", "text": row["input"]} for n, row in enumerate(rows)]
    (tmp_path / "new.jsonl").write_text("".join(json.dumps(row) + "\n" for row in new))
    assert perpetune(tmp_path, "ingest", "tickets.jsonl").exit_code == 0
    return tmp_path


def connected(monkeypatch: pytest.MonkeyPatch, url: str, token: str = "any") -> None:
    monkeypatch.setenv("LABEL_STUDIO_URL", url)
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", token)


def push(workspace: Path, title: str) -> None:
    said = perpetune(workspace, "annotate", "push", "--project", title, "--rows", "new.jsonl", "--errors", "0")
    assert said.exit_code == 0, said.output


def removed(workspace: Path, *selection: str) -> dict[str, Any]:
    said = perpetune(workspace, "data", "remove", *selection, "--yes", "--json")
    assert said.exit_code == 0, said.output
    found: dict[str, Any] = json.loads(said.stdout)
    return found


def places(found: dict[str, Any]) -> dict[str, int]:
    return {each["place"]: each["rows"] for each in found["removed"] if "Label Studio" in each["place"]}


def test_tasks_go_with_annotations_and_predictions(
    server: RunningLabelStudio, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connected(monkeypatch, server.url, server.token)
    push(workspace, "own")
    by_id = {task["data"]["perpetune"]["id"]: task for task in server.tasks("own")}
    server.annotate(by_id["n0"], f"Call {MARKER}.", "textarea")
    server.annotate(by_id["n1"], "Pay it.", "textarea")
    server.annotate(by_id["n2"], "Pay it.", "textarea")
    foreign: Any = server.call(
        "POST", "/api/tasks/", json={"project": server.project("own"), "data": {"input": f"about {MARKER}"}}
    )
    assert perpetune(workspace, "annotate", "pull", "--project", "own").exit_code == 0

    shown = removed(workspace, "--match", MARKER, "--dry-run")
    assert places(shown) == {"Label Studio: project own": 4} and len(server.tasks("own")) == 7
    done = removed(workspace, "--match", MARKER)
    assert places(done) == {"Label Studio: project own": 4}
    left = server.tasks("own")
    assert {task["data"].get("perpetune", {}).get("id") for task in left} == {"n2", "n4", None}
    assert [task["id"] for task in left if MARKER in json.dumps(task)] == [foreign["id"]]
    assert any(f"/data?task={foreign['id']}" in note for note in done["notes"])


def test_a_row_is_erased_there_by_its_id_alone_but_in_no_project_of_others(
    server: RunningLabelStudio, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connected(monkeypatch, server.url, server.token)
    of_others, own = ([{"id": f"n{n}", "text": f"{words} {n}"} for n in range(3)] for words in ("Case", "Parcel"))
    for title, rows in (("of others", of_others), ("by id", own)):
        (workspace / "new.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        push(workspace, title)
    (workspace / PROJECTS).write_text(json.dumps({"url": server.url, "title": "by id"}) + "\n")
    assert places(removed(workspace, "--id", "n2")) == {"Label Studio: project by id": 1}
    assert {task["data"]["perpetune"]["id"] for task in server.tasks("by id")} == {"n0", "n1"}
    assert len(server.tasks("of others")) == 3


def test_a_server_that_does_not_answer_is_named_with_what_may_remain(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [port] = free_ports(1)
    connected(monkeypatch, f"http://127.0.0.1:{port}")
    [note] = [note for note in removed(workspace, "--id", "t3")["notes"] if "Label Studio" in note]
    assert f"http://127.0.0.1:{port}" in note and "tickets:t3" in note and "does not answer" in note
    monkeypatch.delenv("LABEL_STUDIO_API_KEY")
    [note] = [note for note in removed(workspace, "--id", "t1")["notes"] if "Label Studio" in note]
    assert "tickets:t1" in note and "set LABEL_STUDIO_API_KEY to a token" in note
