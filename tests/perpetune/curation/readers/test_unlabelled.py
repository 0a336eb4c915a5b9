from __future__ import annotations

import json
from pathlib import Path

import pytest

from perpetune.curation.readers.options import read_options
from perpetune.curation.readers.unlabelled import UnlabelledRows, labelled_as, read_unlabelled


def read(folder: Path, content: str, name: str = "new.jsonl", columns: tuple[str, ...] = ()) -> UnlabelledRows:
    path = folder / name
    path.write_text(content)
    return read_unlabelled(path, "new", read_options(columns, None, None))


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"input": "a"}, "a"),
        ({"text": "a", "category": 3}, "a"),
        ({"input": "a", "output": ""}, "a"),
        ({"input": "a", "output": None}, "a"),
        ({"body": "a"}, "a"),
        ({"messages": [{"role": "user", "content": "a"}]}, "a"),
        (
            {
                "messages": [
                    {"role": "user", "content": "x"},
                    {"role": "assistant", "content": "y"},
                    {"role": "user", "content": "a"},
                ]
            },
            "a",
        ),
        ({"text": "a", "label": "", "id": 7, "group": "g", "time": "2026-01-01"}, "a"),
    ],
)
def test_rows_without_an_output_are_read(tmp_path: Path, row: dict[str, object], text: str) -> None:
    found = read(tmp_path, json.dumps(row))
    assert [each.input for each in found.rows] == [text], found.rejected
    assert found.rows[0].output == "" and not found.labelled


@pytest.mark.parametrize(
    "row",
    [
        {"input": "a", "output": "b"},
        {"instruction": "a", "output": "b"},
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
    ],
)
def test_rows_with_an_output_are_only_counted(tmp_path: Path, row: dict[str, object]) -> None:
    found = read(tmp_path, json.dumps(row) + "\n" + json.dumps({"input": "c"}))
    assert (len(found.rows), found.labelled) == (1, 1)


def test_every_record_is_read_rejected_or_labelled(tmp_path: Path) -> None:
    records = ['{"text": "a"}', '{"text": ""}', "{broken", '{"input": "a", "output": "b"}', '{"text": "a", "body": 2}']
    found = read(tmp_path, "\n".join(records))
    assert len(found.rows) + len(found.rejected) + found.labelled == len(records)
    assert [row.line for row in found.rejected] == [2, 3]


def test_a_map_that_also_fits_files_with_an_output(tmp_path: Path) -> None:
    columns = ("input=question", "output=answer")
    assert [row.input for row in read(tmp_path, '{"question": "a"}', columns=columns).rows] == ["a"]
    both = read(tmp_path, "question,answer\na,b\nc,\n", "new.csv", columns)
    assert ([row.input for row in both.rows], both.labelled) == (["c"], 1)
    assert [row.input for row in read(tmp_path, '{"text": "a"}', columns=("output=answer",)).rows] == ["a"]


def test_several_texts_ask_which_one_is_meant(tmp_path: Path) -> None:
    [row] = read(tmp_path, '{"one": "a", "other": "b"}').rejected
    assert "--map input=" in row.reason


def test_a_row_without_an_id_gets_that_of_its_content_with_the_label(tmp_path: Path) -> None:
    bare, named = read(tmp_path, '{"text": "a"}\n{"text": "b", "id": "7"}').rows
    assert labelled_as(bare, "x").id != labelled_as(bare, "y").id != bare.id
    assert labelled_as(named, "x").id == "7"


def test_an_id_that_different_rows_share_is_replaced(tmp_path: Path) -> None:
    found = read(tmp_path, '{"text": "a", "id": "1"}\n{"text": "b", "id": "1"}\n{"text": "c", "id": "2"}').rows
    assert len({row.id for row in found}) == 3 and found[2].id == "2"
