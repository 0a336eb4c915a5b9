"""Rows out to people and their labels home, by files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from command_line import perpetune
from predictions import answered
from workspaces import write_params

from perpetune.curation.steps.fetch import fetch
from perpetune.curation.suspects import BY_MODEL, SUSPECTS, Suspect
from perpetune.prediction_log.database import open_log
from perpetune.prediction_log.labels.requests import open_requests
from perpetune.prediction_log.queries import labelled_examples
from perpetune.prediction_log.writes import record_rows
from perpetune.records import Example, Prediction, write_jsonl

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
Answer = Callable[[dict[str, Any]], str | None]


def parcel(number: int, confidence: float | None = 0.9) -> Prediction:
    text = f"Where is parcel {number}?"
    return answered(f"r{number}", text, "billing", task="tickets", time=NOON, confidence=confidence)


def lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("PERPETUNE_HOME", "PERPETUNE_DATABASE_URL", "MLFLOW_TRACKING_URI", "LABEL_STUDIO_URL"):
        monkeypatch.delenv(name, raising=False)
    write_params(
        tmp_path,
        task={"name": "tickets", "labels": ["billing", "login", "a & b"]},
        fetch={"sources": ["inbox"]},
        watch={"label_requests": 10},
    )
    lines(
        tmp_path / "tickets.jsonl",
        [{"id": f"t{n}", "input": f"My bill number {n} is wrong", "output": "login"} for n in range(6)]
        + [{"input": f"Cannot log in to account {n}", "output": "billing"} for n in range(4)],
    )
    assert perpetune(tmp_path, "ingest", "tickets.jsonl").exit_code == 0
    return tmp_path


@pytest.fixture
def log(workspace: Path) -> Iterator[sqlalchemy.Engine]:
    log = open_log(f"sqlite:///{workspace / '.perpetune' / 'predictions.db'}")
    yield log
    log.dispose()


def suspect(workspace: Path, *rows: Example) -> None:
    """The file of the stage label_errors."""
    found = [
        Suspect(
            source=row.source,
            id=row.id,
            input=row.input,
            label=row.output,
            suggested="billing",
            margin=-0.8,
            label_probability=0.1,
            suggested_probability=0.9,
            why=BY_MODEL,
        )
        for row in rows
    ]
    (workspace / SUSPECTS).parent.mkdir(parents=True, exist_ok=True)
    write_jsonl(workspace / SUSPECTS, found)


def rows_of(workspace: Path) -> dict[str, Example]:
    return {row.input: row for row in fetch(["inbox"], workspace, workspace).examples}


def annotated(path: Path, answer: Answer, *people: int) -> None:
    """The tasks as Label Studio exports them, when people have answered."""
    tasks = json.loads(path.read_text())
    for number, task in enumerate(tasks):
        label = answer(task["data"])
        value = {"choices": [label]}
        result = [{"from_name": "answer", "to_name": "input", "type": "choices", "value": value}]
        task["annotations"] = [
            {"id": number, "completed_by": one, "result": result, "updated_at": "2026-06-01T10:00:00Z"}
            for one in people or (1,)
            if label
        ]
    path.write_text(json.dumps(tasks))


def pushed(workspace: Path, *arguments: str) -> list[dict[str, Any]]:
    said = perpetune(workspace, "annotate", "push", "--out", "tasks.json", *arguments)
    assert said.exit_code == 0, said.output
    found: list[dict[str, Any]] = json.loads((workspace / "tasks.json").read_text())
    return found


def pulled(workspace: Path) -> dict[str, Any]:
    said = perpetune(workspace, "annotate", "pull", "--bring", "tasks.json", "--json")
    assert said.exit_code == 0, said.output
    found: dict[str, Any] = json.loads(said.stdout)
    return found


def test_probable_label_errors_come_home_as_newer_rows(workspace: Path) -> None:
    before = rows_of(workspace)
    suspect(workspace, *[row for row in before.values() if row.input.endswith(("2 is wrong", "account 1"))])
    tasks = pushed(workspace)
    assert [task["predictions"][0]["score"] for task in tasks] == [0.9, 0.9]
    assert BY_MODEL in tasks[0]["data"]["why"]
    annotated(workspace / "tasks.json", lambda data: "billing" if "bill" in data["input"] else "login")
    assert [pulled(workspace)[name] for name in ("corrected", "confirmed", "undecided")] == [2, 0, []]
    after = rows_of(workspace)
    changed = {text: row.output for text, row in after.items() if row.output != before[text].output}
    assert changed == {"My bill number 2 is wrong": "billing", "Cannot log in to account 1": "login"}
    assert len(after) == len(before) == 10
    assert {text: (row.source, row.group) for text, row in after.items()} == {
        text: (row.source, row.group) for text, row in before.items()
    }


def test_a_second_pull_changes_nothing_and_a_second_thought_wins(workspace: Path) -> None:
    [row, *_] = rows_of(workspace).values()
    suspect(workspace, row)
    pushed(workspace)
    annotated(workspace / "tasks.json", lambda data: "billing" if row.output == "login" else "login")
    first = pulled(workspace)
    assert (first["new"], first["corrected"]) == (1, 1)
    again = pulled(workspace)
    assert (again["new"], again["corrected"], again["file"]) == (0, 0, None)
    annotated(workspace / "tasks.json", lambda data: "a & b")
    text = (workspace / "tasks.json").read_text().replace("2026-06-01", "2026-06-02")
    (workspace / "tasks.json").write_text(text)
    assert pulled(workspace)["corrected"] == 1
    assert rows_of(workspace)[row.input].output == "a & b"
    assert len(rows_of(workspace)) == 10


@pytest.mark.parametrize("ending", ["2 is wrong", "account 1"])
def test_a_row_in_two_versions_of_a_file_is_corrected_once_and_for_all(workspace: Path, ending: str) -> None:
    more = (workspace / "tickets.jsonl").read_text() + '{"id": "t9", "input": "One more", "output": "login"}\n'
    (workspace / "tickets.jsonl").write_text(more)
    assert perpetune(workspace, "ingest", "tickets.jsonl").exit_code == 0
    row = next(row for row in rows_of(workspace).values() if row.input.endswith(ending))
    suspect(workspace, row)
    pushed(workspace)
    annotated(workspace / "tasks.json", lambda data: "a & b")
    assert pulled(workspace)["corrected"] == 1
    every = fetch(["inbox"], workspace, workspace).examples
    assert {each.output for each in every if each.input == row.input} == {"a & b"}
    assert len({each.input for each in every}) == 11


@pytest.mark.parametrize("id", ["tickets:t2", "t2~0123abcd"])
def test_a_row_whose_id_curation_has_qualified_is_found(workspace: Path, id: str) -> None:
    row = next(row for row in rows_of(workspace).values() if row.id == "t2")
    suspect(workspace, row.model_copy(update={"id": id, "input": "My bill number <NUMBER> is wrong"}))
    pushed(workspace)
    annotated(workspace / "tasks.json", lambda data: "billing")
    assert pulled(workspace)["corrected"] == 1
    assert rows_of(workspace)["My bill number 2 is wrong"].output == "billing"


def test_earlier_corrections_stay_when_others_come(workspace: Path) -> None:
    rows = [row for row in rows_of(workspace).values() if row.output == "login"]
    for row in rows[:2]:
        suspect(workspace, row)
        pushed(workspace)
        annotated(workspace / "tasks.json", lambda data: "billing")
        assert pulled(workspace)["corrected"] == 1
    assert [rows_of(workspace)[row.input].output for row in rows] == ["billing"] * 2 + ["login"] * 4


def test_a_label_that_is_right_is_confirmed(workspace: Path) -> None:
    suspect(workspace, next(row for row in rows_of(workspace).values() if row.output == "login"))
    pushed(workspace)
    annotated(workspace / "tasks.json", lambda data: "login")
    assert pulled(workspace)["confirmed"] == 1


def test_requests_are_asked_for_and_come_home_as_feedback(workspace: Path, log: sqlalchemy.Engine) -> None:
    record_rows(log, [parcel(number, 0.5 + number / 100) for number in range(40)])
    tasks = pushed(workspace)
    wanted = {each.request_id: each.why for each in open_requests(log, "tickets")}
    assert len(tasks) == len(wanted) == 10 and set(wanted.values()) == {"lot", "doubt"}
    for task in tasks:
        why = wanted[task["data"]["perpetune"]["id"]]
        assert ("predictions" in task) == (why == "doubt"), "a suggestion would sway the label of a random request"
    assert len(pushed(workspace)) == 10, "no more are asked for while these are open"
    annotated(workspace / "tasks.json", lambda data: "login")
    assert pulled(workspace)["feedback"] == 10
    assert not open_requests(log, "tickets")
    assert {row.output for row in labelled_examples(log, "tickets")} == {"login"}
    assert pulled(workspace)["feedback"] == 0


def test_requests_unlike_the_training_data_are_among_them(workspace: Path, log: sqlalchemy.Engine) -> None:
    lines(
        workspace / "data" / "splits" / "train.jsonl",
        [{"input": "Where is parcel", "output": "billing", "id": "1", "group": "1", "source": "s"}],
    )
    odd = [parcel(n, 0.99).model_copy(update={"id": f"odd{n}", "input": f"Quantum zebras {n}"}) for n in range(50, 70)]
    record_rows(log, [*[parcel(number, 0.5) for number in range(40)], *odd])
    tasks = pushed(workspace, "--drift", "0.5")
    unlike = [task["data"] for task in tasks if "unlike" in task["data"]["why"]]
    assert len(tasks) == 10 and 2 <= len(unlike) <= 8 and all("zebras" in data["input"] for data in unlike), (
        "5 on average"
    )


def test_labels_of_traffic_that_is_suspected_come_home_as_feedback(workspace: Path, log: sqlalchemy.Engine) -> None:
    record_rows(log, [parcel(1)])
    row = Example(input="Where is parcel 1?", output="billing", id="r1", group="g", source="traffic")
    suspect(workspace, row)
    pushed(workspace, "--requests", "0")
    annotated(workspace / "tasks.json", lambda data: "login")
    assert pulled(workspace)["feedback"] == 1
    assert [row.output for row in labelled_examples(log, "tickets")] == ["login"]


def test_rows_without_a_label_come_home_with_one(workspace: Path) -> None:
    lines(workspace / "new.jsonl", [{"id": "n1", "text": "Reset my password"}, {"text": "Two bills"}])
    tasks = pushed(workspace, "--rows", "new.jsonl")
    assert len(tasks) == 2
    annotated(workspace / "tasks.json", lambda data: "login" if "password" in data["input"] else None)
    assert pulled(workspace)["added"] == 1
    added = rows_of(workspace)["Reset my password"]
    assert (added.output, added.id, added.source) == ("login", "n1", "new")
    assert len(rows_of(workspace)) == 11


def test_annotators_who_disagree_are_named_and_change_nothing(workspace: Path) -> None:
    row = next(row for row in rows_of(workspace).values() if row.output == "login")
    suspect(workspace, row)
    pushed(workspace)
    annotated(workspace / "tasks.json", lambda data: "billing", 1, 2)
    tasks = json.loads((workspace / "tasks.json").read_text())
    tasks[0]["annotations"][1]["result"][0]["value"]["choices"] = ["login"]
    (workspace / "tasks.json").write_text(json.dumps(tasks))
    found = pulled(workspace)
    assert found["corrected"] == 0 and "the annotators disagree" in found["undecided"][0]["reason"]
    assert found["agreement"]["rows"] == 1 and found["agreement"]["pairs"][0]["kappa"] == 0
    tasks[0]["annotations"][1]["ground_truth"] = True
    (workspace / "tasks.json").write_text(json.dumps(tasks))
    assert pulled(workspace)["confirmed"] == 1


def test_a_label_that_is_not_the_tasks_is_left_out(workspace: Path) -> None:
    suspect(workspace, next(iter(rows_of(workspace).values())))
    pushed(workspace)
    annotated(workspace / "tasks.json", lambda data: "delivery")
    found = pulled(workspace)
    assert found["corrected"] == 0 and "not one of the task's labels" in found["undecided"][0]["reason"]


def test_who_and_when_are_kept(workspace: Path) -> None:
    suspect(workspace, next(iter(rows_of(workspace).values())))
    pushed(workspace)
    annotated(workspace / "tasks.json", lambda data: "billing", 1, 2)
    pulled(workspace)
    kept = [json.loads(line) for line in (workspace / "data/annotations/annotations.jsonl").read_text().splitlines()]
    assert [(each["annotator"], each["time"], each["label"]) for each in kept] == [
        ("1", "2026-06-01T10:00:00Z", "billing"),
        ("2", "2026-06-01T10:00:00Z", "billing"),
    ]


def test_argilla_by_files(workspace: Path) -> None:
    suspect(workspace, next(row for row in rows_of(workspace).values() if row.output == "login"))
    [record] = pushed(workspace, "--format", "argilla")
    assert record["suggestions"]["answer"]["value"] == "billing"
    record["responses"] = {"answer": [{"value": "billing", "user_id": "u1"}, {"value": "x", "status": "draft"}]}
    (workspace / "tasks.json").write_text(json.dumps([record]))
    assert pulled(workspace)["corrected"] == 1


def test_our_export_can_be_ingested_as_it_is(workspace: Path) -> None:
    lines(workspace / "new.jsonl", [{"text": "Reset my password"}])
    pushed(workspace, "--rows", "new.jsonl")
    annotated(workspace / "tasks.json", lambda data: "login")
    assert perpetune(workspace, "ingest", "tasks.json").exit_code == 0
    assert rows_of(workspace)["Reset my password"].output == "login"


def test_an_export_of_other_tasks_is_refused(workspace: Path) -> None:
    (workspace / "tasks.json").write_text('[{"data": {"text": "a"}, "annotations": []}]')
    said = perpetune(workspace, "annotate", "pull", "--bring", "tasks.json")
    assert said.exit_code == 1 and "none of its 1 tasks is from `perpetune annotate push`" in said.output


def test_without_a_server_the_variable_is_named(workspace: Path) -> None:
    said = perpetune(workspace, "annotate", "push")
    assert said.exit_code == 1 and "LABEL_STUDIO_URL is not set" in said.output


def test_rows_that_rules_labelled_are_corrected_for_good(workspace: Path) -> None:
    lines(workspace / "new.jsonl", [{"id": f"n{n}", "text": f"Pay {n}"} for n in range(3)])
    (workspace / "rules.py").write_text("def pay(text):\n    return 'login' if 'Pay' in text else None\n")
    assert perpetune(workspace, "rules", "apply", "new.jsonl").exit_code == 0
    suspect(workspace, rows_of(workspace)["Pay 1"])
    pushed(workspace)
    annotated(workspace / "tasks.json", lambda data: "billing")
    assert pulled(workspace)["corrected"] == 1
    assert perpetune(workspace, "rules", "apply", "new.jsonl").exit_code == 0
    assert [rows_of(workspace)[f"Pay {n}"].output for n in range(3)] == ["login", "billing", "login"]
