"""The stages one after the other in a workspace, without DVC, and the command that prints what they suspect."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
from command_line import perpetune
from workspaces import write_params

from perpetune.curation.quarantine import Quarantined, in_order
from perpetune.curation.readers.row import example_of
from perpetune.curation.running.layout import CLEAN, DIVIDED, LABEL_ERRORS, SELECTION, SPLITS
from perpetune.curation.steps import split
from perpetune.quality.steps import label_errors, select, semantic
from perpetune.records import Example, read_jsonl, write_jsonl
from perpetune.workspace import Workspace, open_workspace

ROOT = Path(__file__).parents[3]
WORDS = {"billing": ["invoice", "refund", "fee", "price"], "login": ["password", "account", "reset", "code"]}
WRONG = {"row 10", "row 37", "row 52"}


def lay_out(root: Path, **sections: dict[str, object]) -> Workspace:
    """A workspace with cleaned rows of two labels, three of which are wrong."""
    task = {"name": "mail", "kind": "classification", "labels": None, "instruction": "which"}
    write_params(root, task=task, evaluate={"encoder": None}, **sections)
    shutil.copy(ROOT / "dvc.yaml", root)
    rows = []
    for number in range(160):
        right, other = list(WORDS)[:: 1 if number % 2 else -1]
        words = [WORDS[right][(number // 2 + place) % 4] for place in range(3)]
        label = other if f"row {number}" in WRONG else right
        text = f"{' '.join(words)} {chr(97 + number % 26)}{chr(97 + number // 26)} question"
        rows.append(example_of({"input": text, "output": label, "id": f"row {number}"}, "mine"))
    write_jsonl(root / CLEAN / "examples.jsonl", in_order(rows))
    return open_workspace(root)


def run(workspace: Workspace) -> list[str]:
    params = workspace.params
    return [
        label_errors.run(workspace),
        semantic.run(workspace),
        split.run(params.split, params.mix, params.task, workspace.root),
        select.run(workspace),
    ]


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*.jsonl"))}


def test_by_default_every_row_stays_and_suspects_are_printed(tmp_path: Path) -> None:
    workspace = lay_out(tmp_path)
    lines = run(workspace)
    assert "3 of 160 labels are probably wrong; by TF-IDF, since evaluate.encoder is null" in lines[0]
    for name in ("train", "validation", "frozen", "recent"):
        assert (tmp_path / SPLITS / f"{name}.jsonl").read_bytes() == (tmp_path / DIVIDED / f"{name}.jsonl").read_bytes()
    assert len(read_jsonl(tmp_path / LABEL_ERRORS / "examples.jsonl", Example)) == 160

    printed = perpetune(tmp_path, "data", "suspects", "--json")
    assert printed.exit_code == 0
    found = json.loads(printed.stdout)
    assert {each["id"] for each in found["suspects"]} == WRONG
    table = perpetune(tmp_path, "data", "suspects", "--limit", "1").stdout
    assert "3 of 160 labels are probably wrong" in table and "likelier" in table


def test_a_budget_leaves_the_best_training_rows(tmp_path: Path) -> None:
    workspace = lay_out(tmp_path, select={"budget": 40}, label_errors={"action": "quarantine"})
    run(workspace)
    train = read_jsonl(tmp_path / SPLITS / "train.jsonl", Example)
    assert Counter(row.output for row in train) == {"billing": 20, "login": 20}
    assert not WRONG & {row.id for row in train}
    left = read_jsonl(tmp_path / SELECTION / "quarantined.jsonl", Quarantined)
    assert len(train) + len(left) == len(read_jsonl(tmp_path / DIVIDED / "train.jsonl", Example))


@pytest.mark.slow
def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    found = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        workspace = lay_out(tmp_path / name, select={"budget": 40}, label_errors={"action": "relabel"})
        run(workspace)
        found.append(files(tmp_path / name))
    assert found[0] == found[1]


def test_free_text_passes_and_no_older_report_stays(tmp_path: Path) -> None:
    run(lay_out(tmp_path))
    write_params(tmp_path, task={"kind": "generation", "labels": None}, evaluate={"encoder": None})
    workspace = open_workspace(tmp_path)
    assert "free text has no labels" in label_errors.run(workspace)
    assert (tmp_path / CLEAN / "examples.jsonl").read_bytes() == (
        tmp_path / LABEL_ERRORS / "examples.jsonl"
    ).read_bytes()
    refused = perpetune(tmp_path, "data", "suspects")
    assert refused.exit_code == 1
    assert "no labels have been judged yet" in refused.stderr


@pytest.mark.parametrize("budget", [0, 19])
def test_a_budget_too_small_to_train_on_is_refused(tmp_path: Path, budget: int) -> None:
    write_params(tmp_path, select={"budget": budget})
    refused = perpetune(tmp_path, "data", "suspects")
    assert refused.exit_code == 1 and "budget" in refused.stderr
