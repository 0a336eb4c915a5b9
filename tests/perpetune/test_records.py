from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from perpetune.records import Example, read_jsonl, write_jsonl


def row(number: int) -> Example:
    return Example(input=f"text {number}", output="a", id=f"{number}", group=f"group {number}", source="made")


def test_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    rows = [row(number) for number in range(3)]
    assert write_jsonl(tmp_path / "rows.jsonl", iter(rows)) == 3
    assert read_jsonl(tmp_path / "rows.jsonl", Example) == rows


def test_rows_that_cannot_all_be_written_leave_the_old_file(tmp_path: Path) -> None:
    def broken() -> Iterator[Example]:
        yield row(1)
        raise OSError("no space")

    path = tmp_path / "rows.jsonl"
    write_jsonl(path, [row(0)])
    with pytest.raises(OSError, match="no space"):
        write_jsonl(path, broken())
    assert read_jsonl(path, Example) == [row(0)]
    assert list(tmp_path.iterdir()) == [path]


def test_a_row_takes_little_memory_beside_its_texts() -> None:
    lines = [row(number).model_dump_json() for number in range(2_000)]
    tracemalloc.start()
    rows = [Example.model_validate_json(line) for line in lines]
    copies = [each.model_copy(update={"output": "b"}) for each in rows]
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert used / len(lines) < 1_500  # of a row and its copy; with a set of given fields for each it is 2,600
    assert copies[0].output == "b" and rows[0].output == "a"
