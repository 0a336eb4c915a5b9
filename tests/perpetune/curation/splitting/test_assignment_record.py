from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from perpetune.curation.running.layout import ASSIGNMENTS
from perpetune.curation.splitting.assignment_record import AssignmentRecord, is_missing, load_record, save_record
from perpetune.errors import PerpetuneError
from perpetune.records import Example, write_jsonl

Make = Callable[..., Example]


def test_a_record_that_was_saved_is_read_again(tmp_path: Path, example: Make) -> None:
    record = AssignmentRecord(7).with_rows({"train": [example("a")], "frozen": [example("b", id="x")], "recent": []})
    save_record(tmp_path, record)

    assert load_record(tmp_path, 7) == record
    text = (tmp_path / ASSIGNMENTS).read_text()
    assert text.startswith("key,split\n") and "x" not in {line.split(",")[0] for line in text.splitlines()}


def test_the_first_assignment_stays(example: Make) -> None:
    row = example("a text", id="x")
    record = AssignmentRecord(7).with_rows({"frozen": [row]}).with_rows({"train": [row]})
    assert record.of_row(row, by_text=True) == "frozen" and record.is_frozen(row)


def test_a_row_is_known_by_its_id_its_group_or_its_text(example: Make) -> None:
    record = AssignmentRecord(7).with_rows(
        {"frozen": [example("one", id="x"), example("two"), example("3", group="g")]}
    )

    assert record.of_row(example("rewritten", id="x"), by_text=False) == "frozen"
    assert record.of_row(example("rewritten", id="file:x"), by_text=False) == "frozen", "validate qualifies ids"
    assert record.of_row(example("other", group="g"), by_text=False) == "frozen"
    assert record.of_row(example("Two!"), by_text=True) == "frozen"
    assert record.of_row(example("Two!"), by_text=False) is None
    assert record.of_row(example("One.", id="x", source="renamed"), by_text=False) == "frozen"
    assert record.of_row(example("two", source="renamed"), by_text=False) == "frozen"
    assert record.of_row(example("another", id="x", source="elsewhere"), by_text=False) is None


def test_splits_that_were_made_before_there_was_a_record_are_kept(tmp_path: Path, example: Make) -> None:
    write_jsonl(tmp_path / "data/splits/frozen.jsonl", [example("a", id="x")])
    write_jsonl(tmp_path / "data/splits/train.jsonl", [example("b", id="y")])
    record = load_record(tmp_path, 7)
    assert record.of_row(example("a.", id="x"), by_text=True) == "frozen"
    assert record.of_row(example("b.", id="y"), by_text=True) == "train"


def test_a_record_that_is_lost_is_an_error_with_the_way_to_get_it(tmp_path: Path) -> None:
    assert load_record(tmp_path, 7) == AssignmentRecord(7), "a new workspace has none"
    lock = {"stages": {"split": {"outs": [{"path": "data/splits"}, {"path": str(ASSIGNMENTS)}]}}}
    (tmp_path / "dvc.lock").write_text(yaml.safe_dump(lock))
    assert is_missing(tmp_path)
    with pytest.raises(PerpetuneError, match=r"dvc pull data/assignments\.csv"):
        load_record(tmp_path, 7)


def test_a_damaged_record_is_an_error_that_names_its_line(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / ASSIGNMENTS).write_text("key,split\n0123456789abcdef,train\nmerge conflict\n")
    with pytest.raises(PerpetuneError, match=r"assignments\.csv:3.*\n.*dvc checkout"):
        load_record(tmp_path, 7)
