from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import perpetune
from workspaces import write_params

from perpetune.curation.rows.sources import RULES
from perpetune.curation.running.layout import INBOX
from perpetune.curation.steps.fetch import fetch
from perpetune.curation.steps.split import split
from perpetune.params import SplitParams

WORDS = {"billing": ("pay", "refund", "invoice"), "login": ("password", "account", "locked")}
RULES_FILE = """
def pay(text: str) -> str | None:
    return "billing" if "pay" in text else None

def refund(text: str) -> str | None:
    return " Billing" if "refund" in text or "invoice" in text else None

def password(text: str) -> str | None:
    if "broken" in text:
        raise ValueError("cannot read this")
    return "login" if "password" in text or "locked" in text else None
"""


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("PERPETUNE_HOME", "PERPETUNE_DATABASE_URL", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    write_params(tmp_path, task={"name": "tickets", "labels": ["billing", "login"]}, fetch={"sources": ["inbox"]})
    (tmp_path / "rules.py").write_text(RULES_FILE)
    texts = [f"{word} of case {number}" for word in sum(WORDS.values(), ()) for number in range(20)]
    lines(tmp_path / "new.jsonl", [{"id": f"t{number}", "text": text} for number, text in enumerate(texts)])
    return tmp_path


def lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def inbox(workspace: Path) -> Path:
    [file] = (workspace / INBOX).glob("*.jsonl")
    return file


def test_rows_get_labels_with_confidence_and_votes(workspace: Path) -> None:
    said = perpetune(workspace, "rules", "apply", "new.jsonl")
    assert said.exit_code == 0, said.output
    rows = read(inbox(workspace))
    assert len(rows) == 100 and {row["source"] for row in rows} == {RULES}
    assert {row["id"]: row["output"] for row in rows}["t0"] == "billing"
    [kept] = [row for row in read(inbox(workspace).parent / "rules" / inbox(workspace).name) if row["id"] == "t0"]
    assert kept["label"] == "billing" and kept["votes"] == {"pay": "billing"} and 0.5 < kept["confidence"] < 1
    left = read(workspace / "data" / "rules" / "new.abstained.jsonl")
    assert len(left) == 20 and all("account" in row["input"] and row["why"] == "no rule voted" for row in left)


def test_a_name_that_leaves_the_folder_is_refused(workspace: Path) -> None:
    said = perpetune(workspace, "rules", "apply", "new.jsonl", "--name", "../out")
    assert said.exit_code == 1 and "--name" in said.output
    assert not list(workspace.rglob("out.*"))


def test_all_rows_that_came_in_go_out(workspace: Path) -> None:
    lines(
        workspace / "mixed.jsonl", [{"text": "pay me"}, {"text": "hm"}, {"text": ""}, {"input": "a", "output": "login"}]
    )
    said = json.loads(perpetune(workspace, "rules", "apply", "mixed.jsonl", "--json").stdout)
    assert [said[name] for name in ("labelled", "abstained", "rejected", "with_output")] == [1, 1, 1, 1]


def test_the_table_shows_what_each_rule_is_worth(workspace: Path) -> None:
    lines(
        workspace / "gold.jsonl", [{"input": f"pay {n}", "output": "billing" if n % 2 else "login"} for n in range(20)]
    )
    said = json.loads(perpetune(workspace, "rules", "apply", "new.jsonl", "--gold", "gold.jsonl", "--json").stdout)
    pay, refund, _ = said["rules"]
    assert pay["coverage"] == pytest.approx(20 / 120) and pay["accuracy"]["value"] == 0.5 and pay["accuracy"]["n"] == 20
    assert refund["accuracy"] is None and pay["overlap"] == pay["conflict"] == 0
    assert pay["estimated"] < refund["estimated"]


def test_an_exception_is_an_abstention_that_is_counted_and_shown(workspace: Path) -> None:
    lines(
        workspace / "new.jsonl", [{"text": "password"}, {"text": "broken password"}, {"text": "very broken password"}]
    )
    said = perpetune(workspace, "rules", "apply", "new.jsonl")
    assert said.exit_code == 0
    assert "`password` raised 2 exceptions, each an abstention" in said.output
    assert "ValueError: cannot read this (line 10)" in said.output


@pytest.mark.parametrize(("returned", "shown"), [("'delivery'", "'delivery'"), ("3", "3"), ("['login']", r"['login']")])
def test_a_rule_that_returns_no_label_is_refused_by_name(workspace: Path, returned: str, shown: str) -> None:
    (workspace / "rules.py").write_text(f"def odd(text):\n    return {returned}\n")
    said = perpetune(workspace, "rules", "apply", "new.jsonl")
    assert said.exit_code == 1
    assert f"the rule `odd` returned {shown}, which is no label of the task" in said.output
    assert not (workspace / "data").exists()


def test_a_second_run_takes_the_place_of_the_first(workspace: Path) -> None:
    perpetune(workspace, "rules", "apply", "new.jsonl")
    first = inbox(workspace)
    (workspace / "rules.py").write_text("def pay(text):\n    return 'billing' if 'pay' in text else None\n")
    perpetune(workspace, "rules", "apply", "new.jsonl")
    assert inbox(workspace) != first
    assert len(fetch(["inbox"], workspace, workspace).examples) == 20
    perpetune(workspace, "rules", "apply", "new.jsonl")
    assert len(read(inbox(workspace))) == 20


def test_what_is_labelled_in_the_inbox_is_not_labelled_again(workspace: Path) -> None:
    lines(workspace / "people.jsonl", [{"input": "pay of case 3", "output": "login"}])
    perpetune(workspace, "ingest", "people.jsonl")
    perpetune(workspace, "rules", "apply", "new.jsonl")
    found = [row for row in fetch(["inbox"], workspace, workspace).examples if row.input == "pay of case 3"]
    assert [row.output for row in found] == ["login"]


def test_a_dry_run_adds_nothing(workspace: Path) -> None:
    assert "none was added to the inbox" in perpetune(workspace, "rules", "apply", "new.jsonl", "--dry-run").output
    assert not (workspace / INBOX).exists()


def test_rows_labelled_by_rules_are_in_no_holdout(workspace: Path) -> None:
    lines(
        workspace / "people.jsonl",
        [{"input": f"{label} question {n}", "output": label, "group": f"g{n}"} for label in WORDS for n in range(60)],
    )
    perpetune(workspace, "ingest", "people.jsonl")
    perpetune(workspace, "rules", "apply", "new.jsonl")
    rows = fetch(["inbox"], workspace, workspace).examples
    splits = split(rows, SplitParams(), labelled=True)
    held_out = [*splits.frozen, *splits.recent, *splits.validation]
    assert held_out and not any(row.source == RULES for row in held_out)
    assert sum(row.source == RULES for row in splits.train) == 100


def test_free_text_has_no_rules(workspace: Path) -> None:
    write_params(workspace, task={"name": "tickets", "kind": "generation", "labels": None})
    said = perpetune(workspace, "rules", "apply", "new.jsonl")
    assert said.exit_code == 1 and "task.kind is generation" in said.output


PROMPTED = """
from perpetune.rules import Prompt

def pay(text):
    return "billing" if "pay" in text else None

large = Prompt(url="{url}/v1", model="big", dollars_read=100.0)
"""


def test_a_larger_model_votes_too_and_costs_nothing_twice(
    workspace: Path, json_server: Callable[[Callable[[dict[str, Any]], tuple[int, dict[str, Any]]]], str]
) -> None:
    asked: list[str] = []

    def reply(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        asked.append(body["messages"][-1]["content"])
        label = "login" if "account" in asked[-1] else "none"
        choice = {"index": 0, "message": {"role": "assistant", "content": label}, "finish_reason": "stop"}
        return 200, {"choices": [choice], "usage": {"prompt_tokens": 30, "completion_tokens": 2}}

    (workspace / "rules.py").write_text(PROMPTED.format(url=json_server(reply)))
    before = perpetune(workspace, "rules", "apply", "new.jsonl", "--estimate")
    assert before.exit_code == 0 and "`large`: 120 requests" in before.output and "about $" in before.output
    assert not asked and not (workspace / INBOX).exists()
    first = perpetune(workspace, "rules", "apply", "new.jsonl")
    assert first.exit_code == 0 and len(asked) == 120
    assert sorted({(row["output"], row["input"].split()[0]) for row in read(inbox(workspace))}) == [
        ("billing", "pay"),
        ("login", "account"),
    ]
    second = perpetune(workspace, "rules", "apply", "new.jsonl")
    assert "all 120 replies are in the cache" in second.output and len(asked) == 120


def test_a_prompt_needs_to_know_the_labels(workspace: Path) -> None:
    write_params(workspace, task={"name": "tickets", "labels": None}, fetch={"sources": ["inbox"]})
    (workspace / "rules.py").write_text(PROMPTED.format(url="http://127.0.0.1:1"))
    said = perpetune(workspace, "rules", "apply", "new.jsonl")
    assert said.exit_code == 1 and "the task's labels are not known" in said.output
