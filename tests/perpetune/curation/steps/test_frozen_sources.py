"""Rows of a validation file are never trained on, nor is what is like them."""

from __future__ import annotations

from pathlib import Path

import pytest

from perpetune.curation.splitting.assignment_record import AssignmentRecord, load_record
from perpetune.curation.splitting.splits import Splits
from perpetune.curation.steps.clean import clean
from perpetune.curation.steps.split import split
from perpetune.curation.text import fingerprint, normalised
from perpetune.params import CleanParams, SplitParams, TaskParams
from perpetune.records import Example

VALIDATION = "openai-validation"
WORDS = ["amber", "birch", "cedar", "daisy", "ember", "fjord", "grove", "hazel", "ivory", "jade"]


def row(text: str, source: str, output: str = "x") -> Example:
    return Example(
        input=text, output=output, id=fingerprint(text, source), group=fingerprint(normalised(text)), source=source
    )


def training(count: int = 60) -> list[Example]:
    return [
        row(f"{WORDS[n % 10]} {WORDS[n // 10]} stands behind the old mill number {n}", "training") for n in range(count)
    ]


HELD_OUT = [row(f"what did the {word} say to the sailor about supper", VALIDATION) for word in WORDS]
RECORDS = [None, AssignmentRecord(7)]


def texts(found: Splits, name: str) -> set[str]:
    return {row.input for row in found.parts()[name]}


@pytest.mark.parametrize("record", RECORDS, ids=["by hash", "with a record"])
def test_all_of_them_are_frozen_whatever_the_ratio(record: AssignmentRecord | None) -> None:
    found = split([*training(), *HELD_OUT], SplitParams(frozen=0.1, frozen_traffic=0.1), record)

    assert texts(found, "frozen") >= {row.input for row in HELD_OUT}


@pytest.mark.parametrize("record", RECORDS, ids=["by hash", "with a record"])
def test_a_training_row_with_the_same_input_is_not_trained_on(record: AssignmentRecord | None) -> None:
    twins = [row(HELD_OUT[0].input, "training", "y"), row(HELD_OUT[1].input.upper() + "!", "training")]
    found = split([*training(), *HELD_OUT, *twins], SplitParams(), record)

    for name in ("train", "validation"):
        assert not texts(found, name) & {twin.input for twin in twins}


def test_a_row_that_was_trained_on_before_leaves_training() -> None:
    old = row(HELD_OUT[0].input, "training")
    rows = [*training(), old]
    params = SplitParams()
    before = AssignmentRecord(7).with_rows({"train": [old]})
    found = split([*rows, *HELD_OUT], params, before.with_rows({"train": rows}))

    assert old.id not in {each.id for name in ("train", "validation") for each in found.parts()[name]}
    assert {each.input for each in HELD_OUT[1:]} <= texts(found, "frozen")


def test_other_sources_can_be_named() -> None:
    found = split([*training(), *HELD_OUT], SplitParams(frozen_sources=("training",)), AssignmentRecord(7))

    assert texts(found, "frozen") >= {row.input for row in training()}


@pytest.mark.parametrize("kind", ["classification", "generation"])
def test_of_a_row_in_both_files_the_held_out_one_is_kept(tmp_path: Path, kind: str) -> None:
    """Else the one that is left would not be known to be held out."""
    task = TaskParams.model_validate({"name": "t", "kind": kind, "instruction": ""})
    other = "y" if kind == "classification" else "x"
    twins = [row(HELD_OUT[0].input, "aaa"), row(HELD_OUT[1].input, "zzz", other)]
    record = load_record(tmp_path, 7)
    kept = clean([*training(), *HELD_OUT, *twins], CleanParams(), task, record).kept

    assert {each.input for each in kept if each.source == VALIDATION} == {each.input for each in HELD_OUT}
    assert not {"aaa", "zzz"} & {each.source for each in kept}
    found = split(kept, SplitParams(), record)
    assert texts(found, "frozen") >= {each.input for each in HELD_OUT}


def test_the_record_knows_the_resolved_setting(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/params.yaml").write_text("split: {frozen_sources: [exam]}\n")
    record = load_record(tmp_path, 7)

    assert record.is_frozen(row("a", "exam"))
    assert not record.is_frozen(row("a", VALIDATION))
    assert record.with_rows({"train": training()}).frozen_sources == {"exam"}
