from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

from perpetune.curation.ingest import ingest
from perpetune.curation.rows.versions import OLDER_VERSION, newest_versions
from perpetune.curation.steps.fetch import fetch
from perpetune.records import Example

Make = Callable[..., Example]


def labels(rows: list[Example]) -> dict[str, str]:
    assert len({row.id for row in rows}) == len(rows)
    return {row.id: row.output for row in rows}


def test_a_corrected_label_wins(example: Make) -> None:
    old = [example(f"ticket {n}", "b", id=str(n)) for n in range(6)]
    new = [*old[:1], example("ticket 1", "a", id="1"), *old[2:]]
    kept, older = newest_versions([old, new])

    assert {row.output for row in kept if row.id == "1"} == {"a"}
    assert [(row.reason, row.example) for row in older] == [(OLDER_VERSION, old[1])]


def test_of_three_versions_the_last_wins_even_if_it_is_the_first_again(example: Make) -> None:
    versions = [[example("a text", output, id="x")] for output in ("a", "b", "c", "a")]
    kept, older = newest_versions(versions)
    assert labels(kept) == {"x": "a"}
    assert sorted(row.example.output for row in older) == ["a", "b", "c"]


def test_a_later_time_is_newer_than_a_later_file(example: Make) -> None:
    new, old = example("a text", "new", id="x", hour=2), example("a text", "old", id="x", hour=1)
    kept, older = newest_versions([[new], [old]])
    assert labels(kept) == {"x": "new"}
    assert [row.example for row in older] == [old]


def test_a_rewritten_text_among_rows_that_stayed_is_a_version(example: Make) -> None:
    stayed = [example(f"row {n}", id=str(n)) for n in range(9)]
    kept, older = newest_versions(
        [[*stayed, example("old words", id="x")], [*stayed, example("quite new text", id="x")]]
    )
    assert [row.input for row in kept if row.id == "x"] == ["quite new text"]
    assert len(older) == 1


def test_files_that_each_number_their_rows_from_1_lose_none(example: Make) -> None:
    weeks = [[example(f"week {week} ticket {n}", id=str(n)) for n in range(6)] for week in range(3)]
    kept, older = newest_versions(weeks)
    assert len(kept) == 18 and not older


def test_rows_of_one_file_and_rows_without_ids_are_left_to_later_steps(example: Make) -> None:
    rows = [example("a", "x", id="1"), example("a", "y", id="1"), example("a", "z")]
    kept, older = newest_versions([rows, [example("a", "z")]])
    assert len(kept) == 4 and not older


def test_the_file_that_was_ingested_last_corrects_the_others(tmp_path: Path) -> None:
    for moment, output in enumerate(["b", "a"]):
        file = tmp_path / "export.jsonl"
        file.write_text("".join(json.dumps({"id": n, "input": f"t {n}", "output": output}) + "\n" for n in range(3)))
        path = ingest(file, tmp_path / "data/inbox").path
        os.utime(path, (1000 + moment, 1000 + moment))
    found = fetch(("inbox",), tmp_path, tmp_path)
    assert {row.output for row in found.examples} == {"a"}
    assert [row.reason for row in found.superseded] == [OLDER_VERSION] * 3
