from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from perpetune.curation.readers.identity import alike, has_content_id, unrelated_ids
from perpetune.curation.readers.reader import read_examples
from perpetune.records import Example

Make = Callable[..., Example]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("my parcel was late", "My parcel was late.", True),
        ("my parcel was late", "my parcel was very late", True),
        ("week 1 ticket 0", "week 2 ticket 0", False),
        ("where is my parcel", "I want my money back", False),
        ("", "", True),
    ],
)
def test_edits_are_alike(one: str, other: str, same: bool) -> None:
    assert alike(one, other) is same


def test_ids_that_name_different_rows(example: Make) -> None:
    rows = [
        *(example(f"shard {shard} row {number}", id=str(number)) for shard in range(2) for number in range(3)),
        example("the same", id="repeated"),
        example("the same", id="repeated"),
        example("an old text", id="edited", hour=1),
        example("an old text.", id="edited", hour=2),
        example("one label", "a", id="undated"),
        example("one label", "b", id="undated"),
        *(example(f"message {hour}", id="session", hour=hour) for hour in range(4)),
    ]

    assert unrelated_ids(lambda: iter(rows)) == {"0", "1", "2", "undated", "session"}


def test_no_row_of_shards_vanishes(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows = [
        {"id": number, "input": f"shard {shard} row {number}", "output": "a"} for shard in (0, 1) for number in range(6)
    ]
    path.write_text("\n".join(json.dumps(row) for row in [*rows, {"id": "own", "input": "b", "output": "a"}]))

    examples = read_examples(path, "mine").examples

    assert len({row.id for row in examples}) == 13
    assert [has_content_id(row) for row in examples] == [True] * 12 + [False]
