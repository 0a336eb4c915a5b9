"""A real Label Studio; skipped unless `make label-studio` was run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import perpetune
from label_studio_server import USER, RunningLabelStudio, is_installed, label_studio
from workspaces import write_params

from perpetune.curation.steps.fetch import fetch

pytestmark = [pytest.mark.slow, pytest.mark.integration, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningLabelStudio]:
    if not is_installed():
        pytest.skip("Label Studio is not installed: `make label-studio`")
    with label_studio(tmp_path_factory.mktemp("label-studio")) as running:
        yield running


@pytest.fixture
def workspace(server: RunningLabelStudio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("PERPETUNE_HOME", "PERPETUNE_DATABASE_URL", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LABEL_STUDIO_URL", server.url)
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", server.token)
    write_params(
        tmp_path, task={"name": "tickets", "labels": ["billing", "login", 'a & "b"']}, fetch={"sources": ["inbox"]}
    )
    rows = [{"id": f"t{n}", "input": f"My bill number {n} is wrong", "output": "login"} for n in range(6)]
    lines(tmp_path / "tickets.jsonl", rows)
    suspects = [{**row, "source": "tickets", "label": "login", "suggested": "billing"} for row in rows[:3]]
    lines(
        tmp_path / "data/steps/label_errors/suspects.jsonl",
        [
            {**each, "label_probability": 0.1, "suggested_probability": 0.9, "margin": -0.8, "why": "any"}
            for each in suspects
        ],
    )
    assert perpetune(tmp_path, "ingest", "tickets.jsonl").exit_code == 0
    return tmp_path


def lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def run(workspace: Path, *arguments: str) -> dict[str, Any]:
    said = perpetune(workspace, "annotate", *arguments, "--json")
    assert said.exit_code == 0, said.output
    found: dict[str, Any] = json.loads(said.stdout)
    return found


def test_rows_go_out_once_and_their_labels_come_home(server: RunningLabelStudio, workspace: Path) -> None:
    first = run(workspace, "push", "--project", "one")
    assert (first["added"], first["known"]) == (3, 0)
    second = run(workspace, "push", "--project", "one")
    assert (second["added"], second["known"], second["url"]) == (0, 3, first["url"])
    tasks = server.tasks("one")
    assert len(tasks) == 3 and all(task["total_predictions"] == 1 for task in tasks)
    server.annotate(tasks[0], "billing")
    server.annotate(tasks[1], 'a & "b"')
    brought = run(workspace, "pull", "--project", "one")
    assert (brought["annotations"], brought["corrected"]) == (2, 2)
    outputs = {row.id: row.output for row in fetch(["inbox"], workspace, workspace).examples}
    assert len(outputs) == 6 and sorted(outputs.values()) == ['a & "b"', "billing", *["login"] * 4]
    kept = (workspace / "data/annotations/annotations.jsonl").read_text().splitlines()
    assert {json.loads(line)["annotator"] for line in kept} == {USER} and all("time" in json.loads(x) for x in kept)
    assert run(workspace, "pull", "--project", "one")["new"] == 0
    assert server.call("GET", f"/api/projects/{server.project('one')}/export/files") == {"export_files": []}


def test_two_people_and_their_agreement(server: RunningLabelStudio, workspace: Path) -> None:
    run(workspace, "push", "--project", "two", "--annotators", "2")
    other = second_user(server, "ben@example.org")
    for task, labels in zip(
        server.tasks("two"), [("billing", "billing"), ("billing", "login"), ("login",) * 2], strict=True
    ):
        server.annotate(task, labels[0])
        server.annotate(task, labels[1], token=other)
    brought = run(workspace, "pull", "--project", "two")
    assert (brought["annotations"], brought["corrected"], brought["confirmed"]) == (6, 1, 1)
    assert "disagree" in brought["undecided"][0]["reason"]
    [pair] = brought["agreement"]["pairs"]
    assert {pair["one"], pair["other"]} == {USER, "ben@example.org"} and pair["rows"] == 3
    assert pair["kappa"] == pytest.approx(0.4)


def second_user(server: RunningLabelStudio, email: str) -> str:
    """Another user of the same organisation; returns a legacy token."""
    invite: Any = server.call("GET", "/api/invite")
    import httpx

    with httpx.Client(base_url=server.url, follow_redirects=True, timeout=60) as client:
        page = client.get(invite["invite_url"])
        assert page.is_success
        form = {"email": email, "password": "secret-12345", "csrfmiddlewaretoken": client.cookies["csrftoken"]}
        client.post(invite["invite_url"], data=form, headers={"referer": server.url})
        found = client.get("/api/current-user/token")
        assert found.is_success, found.text
        return str(found.json()["token"])


def test_a_personal_access_token_is_exchanged(
    server: RunningLabelStudio, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: Any = server.call("POST", "/api/token/")
    assert made["token"].count(".") == 2
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", made["token"])
    assert run(workspace, "push", "--project", "three")["added"] == 3


def test_a_wrong_token_says_what_to_set(
    server: RunningLabelStudio, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in ("wrong", "a.b.c"):
        monkeypatch.setenv("LABEL_STUDIO_API_KEY", key)
        said = perpetune(workspace, "annotate", "push")
        assert said.exit_code == 1 and "refuses the token" in said.output and "LABEL_STUDIO_API_KEY" in said.output


def test_a_new_label_of_the_task_can_be_chosen(server: RunningLabelStudio, workspace: Path) -> None:
    run(workspace, "push", "--project", "four")
    write_params(
        workspace, task={"name": "tickets", "labels": ["billing", "login", "new one"]}, fetch={"sources": ["inbox"]}
    )
    run(workspace, "push", "--project", "four")
    server.annotate(server.tasks("four")[0], "new one")
    assert run(workspace, "pull", "--project", "four")["corrected"] == 1


def test_a_configuration_that_the_team_has_changed_stays(server: RunningLabelStudio, workspace: Path) -> None:
    number = run(workspace, "push", "--project", "seven")["url"].rpartition("/")[2]
    found: Any = server.call("GET", f"/api/projects/{number}")
    own = found["label_config"].replace("<Header", '<Header value="Read it twice."/><Header')
    server.call("PATCH", f"/api/projects/{number}/", json={"label_config": own})
    run(workspace, "push", "--project", "seven")
    after: Any = server.call("GET", f"/api/projects/{number}")
    assert after["label_config"] == own


def test_free_text_comes_home(server: RunningLabelStudio, workspace: Path) -> None:
    write_params(
        workspace, task={"name": "tickets", "kind": "generation", "labels": None}, fetch={"sources": ["inbox"]}
    )
    lines(workspace / "new.jsonl", [{"id": "n1", "text": "Reset my password"}])
    assert run(workspace, "push", "--project", "five", "--rows", "new.jsonl", "--errors", "0")["added"] == 1
    server.annotate(server.tasks("five")[0], "Click on\nforgotten.", "textarea")
    assert run(workspace, "pull", "--project", "five")["added"] == 1
    rows = {row.id: row.output for row in fetch(["inbox"], workspace, workspace).examples}
    assert rows["n1"] == "Click on\nforgotten."


def test_many_tasks_go_out_in_parts(server: RunningLabelStudio, workspace: Path) -> None:
    lines(workspace / "new.jsonl", [{"id": f"n{n}", "text": f"Case {n}"} for n in range(1100)])
    pushed = run(workspace, "push", "--project", "six", "--rows", "new.jsonl", "--errors", "0")
    assert pushed["added"] == 1100
    again = run(workspace, "push", "--project", "six", "--rows", "new.jsonl", "--errors", "0")
    assert (again["added"], again["known"]) == (0, 1100)
