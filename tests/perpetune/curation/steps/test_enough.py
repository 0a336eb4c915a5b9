from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from perpetune.curation.steps import clean as cleaning
from perpetune.curation.steps import split as splitting
from perpetune.curation.steps import validate
from perpetune.errors import PerpetuneError
from perpetune.params import CleanParams, MixParams, SplitParams, TaskParams
from perpetune.records import Example, write_jsonl

Make = Callable[..., Example]
Task = Callable[..., TaskParams]


def curate(workspace: Path, rows: list[Example], task: TaskParams, split: SplitParams | None = None) -> str:
    (workspace / "data/raw").mkdir(parents=True, exist_ok=True)
    write_jsonl(workspace / "data/raw/examples.jsonl", rows)
    validate.run(workspace)
    cleaning.run(CleanParams(), task, 7, workspace)
    return splitting.run(split or SplitParams(), MixParams(), task, workspace)


def refusal(*arguments: object) -> str:
    with pytest.raises(PerpetuneError) as caught:
        curate(*arguments)  # type: ignore[arg-type]
    return str(caught.value)


def test_free_text_that_is_taken_for_labels_is_called_so(tmp_path: Path, example: Make, task: Task) -> None:
    rows = [example(f"q{n} something", f"a long free answer number {n}") for n in range(200)]
    message = refusal(tmp_path, rows, task())
    assert "0 training rows" in message
    assert "200 rows: label with too few rows" in message
    assert "task.kind: generation" in message

    assert "train 140" in curate(tmp_path, rows, task("generation"))


def test_labels_that_the_task_does_not_name(tmp_path: Path, example: Make, task: Task) -> None:
    message = refusal(tmp_path, [example(f"q{n}", "ab"[n % 2]) for n in range(100)], task(labels=("x", "y")))
    assert "100 rows: label not in task.labels" in message
    assert "correct task.labels" in message


def test_texts_that_are_too_long(tmp_path: Path, example: Make, task: Task) -> None:
    message = refusal(tmp_path, [example(f"{n}" * 9000, "ab"[n % 2]) for n in range(100)], task())
    assert "100 rows: input too long" in message
    assert "clean.max_input_chars" in message


def test_too_few_rows_are_too_few_whatever_was_dropped(tmp_path: Path, example: Make, task: Task) -> None:
    rows = [example(f"q{n}", "ab"[n % 2]) for n in range(10)]
    message = refusal(tmp_path, [*rows, example("q", "rare")], task())
    assert "7 training rows are fewer" in message and "1 row: label with too few rows" in message
    assert message.endswith("and `inbox` in fetch.sources of params.yaml")
    assert "task.kind" not in message


def test_forms_that_are_alike_are_told_how_to_be_split(tmp_path: Path, example: Make, task: Task) -> None:
    form = "we hereby confirm that the appointment which you made with our clinic on the telephone takes place " * 3
    rows = [example(f"{form} number {n}", f"answer {n}") for n in range(60)]
    message = refusal(tmp_path, rows, task("generation"))
    assert "near duplicate of a row of the frozen holdout" in message
    assert "split.near_duplicates: false" in message
    assert "train 42" in curate(tmp_path, rows, task("generation"), SplitParams(near_duplicates=False))


def test_a_refused_split_records_nothing(tmp_path: Path, example: Make, task: Task) -> None:
    refusal(tmp_path, [example(f"q{n}", "ab"[n % 2]) for n in range(10)], task())
    assert not (tmp_path / "data/assignments.csv").exists()
    curate(tmp_path, [example(f"q{n}", "ab"[n % 2]) for n in range(100)], task())
    assert (tmp_path / "data/assignments.csv").exists()


def test_older_versions_are_counted_as_quarantined(tmp_path: Path, example: Make) -> None:
    raw = tmp_path / "data/raw"
    raw.mkdir(parents=True)
    write_jsonl(raw / "examples.jsonl", [example("a", "new", id="1")])
    older = {"reason": "same id as a newer row", "example": example("a", "old", id="1").model_dump(mode="json")}
    (raw / "superseded.jsonl").write_text(json.dumps(older) + "\n")
    assert validate.run(tmp_path) == "1 examples, 1 quarantined"
