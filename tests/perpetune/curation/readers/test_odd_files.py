"""Files as people have them: put together, exported by other programs, cut off."""

from __future__ import annotations

import json
import time
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from perpetune.curation.ingest import ingest
from perpetune.curation.readers.reader import read_examples
from perpetune.errors import PerpetuneError
from perpetune.evaluation.recorded_answers import recorded_answers
from perpetune.records import Example

HEADER = "input,output\n"
ROW = '{"input": "a", "output": "x"}\n'


def found(path: Path, content: str) -> tuple[list[tuple[str, str]], list[str]]:
    path.write_text(content, newline="")
    read = read_examples(path, "x")
    return [(row.input, row.output) for row in read.examples], [row.reason for row in read.rejected]


def test_a_byte_order_mark_between_files_that_were_put_together(tmp_path: Path) -> None:
    assert found(tmp_path / "a.jsonl", ROW + "\ufeff" + ROW) == ([("a", "x"), ("a", "x")], [])


@pytest.mark.parametrize(
    "content",
    [
        '[{"input": "a, ]", "output": "x,}",}, {"input": "b", "output": "y",},]',
        '[\n {\n  "input": "a, ]",\n  "output": "x,}",\n },\n {\n  "input": "b",\n  "output": "y"\n },\n]',
        '{"input": "a, ]", "output": "x,}",}\n{"input": "b", "output": "y"},\n',
        '{"data": [{"input": "a, ]", "output": "x,}",}, {"input": "b", "output": "y"},],}',
    ],
)
def test_commas_too_many_cost_nothing_wherever_they_are(tmp_path: Path, content: str) -> None:
    assert found(tmp_path / "a.json", content) == ([("a, ]", "x,}"), ("b", "y")], [])
    assert found(tmp_path / "a.jsonl", content) == ([("a, ]", "x,}"), ("b", "y")], [])


def test_a_spare_comma_hides_no_other_fault(tmp_path: Path) -> None:
    broken = '[{"input": "a", "output": "x" oops,}, {"input": "b",, "output": "y",}, {"input": "c", "output": "z",}]'
    rows, reasons = found(tmp_path / "a.json", broken)
    assert rows == [("c", "z")] and len(reasons) == 2 and all("broken JSON" in reason for reason in reasons)


def test_many_broken_values_cost_as_many_looks_and_not_their_square(tmp_path: Path) -> None:
    began = time.monotonic()
    rows, reasons = found(tmp_path / "a.json", "[" + '"abc\n' * 15_000 + '{"input": "a", "output": "x"}]')
    assert rows == [("a", "x")] and len(reasons) == 15_000 and time.monotonic() - began < 10


@pytest.mark.parametrize("start", ["sep=;\n", "sep=;\r\n", "\ufeffsep=;\n"])
def test_a_first_line_that_says_the_separator(tmp_path: Path, start: str) -> None:
    assert found(tmp_path / "a.csv", f"{start}input;output\na,b;x\n") == ([("a,b", "x")], [])
    with pytest.raises(PerpetuneError, match="the file is empty"):
        found(tmp_path / "a.csv", start)


def test_what_is_wrong_with_a_row_is_said_in_words(tmp_path: Path) -> None:
    _, [reason] = found(tmp_path / "a.csv", HEADER + "a,x\nb,y\rc,z\n")
    assert "a carriage return outside of quotes" in reason
    _, [reason] = found(tmp_path / "a.jsonl", '{"input": "a", "output": Infinity}\n' + ROW)
    assert reason == "is an infinite number"
    for name, deep in (("a.jsonl", "[" * 9_000 + "]" * 9_000), ("a.json", '{"a":' * 9_000 + "}" * 9_000)):
        content = f'{{"input": "a", "output": {deep}}}\n'
        _, [reason] = found(tmp_path / name, content + ROW if name == "a.jsonl" else f"[{content},{ROW}]")
        assert "nested too deeply" in reason


@pytest.mark.parametrize("cell", ['"""\n"', '"x"",y\nz"', '"""""\n"', '"a\n""\n"'])
def test_a_broken_record_ends_where_its_last_quote_closes(tmp_path: Path, cell: str) -> None:
    """Two quotes are one of the text, at the end of a line and before a separator too."""
    path = tmp_path / "odd.csv"
    path.write_bytes(f"input,output,note\na\rb,{cell},n\ngood,yes,n\n".encode())
    found = read_examples(path, "mine")
    assert [(row.input, row.output) for row in found.examples] == [("good", "yes")]
    assert [row.line for row in found.rejected] == [2]


@pytest.mark.parametrize("name", ["a.csv", "a.parquet", "a.jsonl"])
def test_a_file_without_rows(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text(HEADER)
    if name == "a.parquet":
        pq.write_table(pa.table({"input": pa.array([], pa.string()), "output": pa.array([], pa.string())}), path)
    if name == "a.jsonl":
        path.write_text("[]")
    with pytest.raises(PerpetuneError, match=r"the file has no rows|the file is empty|no valid|none of"):
        ingest(path, tmp_path / "data/inbox")


def test_decimals_of_a_table_are_numbers(tmp_path: Path) -> None:
    values = [Decimal("1.50"), Decimal("2.00")]
    pq.write_table(pa.table({"input": ["a", "b"], "output": pa.array(values)}), tmp_path / "a.parquet")
    assert [row.output for row in read_examples(tmp_path / "a.parquet", "x").examples] == ["1.5", "2"]


def test_spans_of_openinference(tmp_path: Path) -> None:
    said = [("input", 1, "user", "hi"), ("input", 0, "system", "be brief"), ("output", 0, "assistant", "yo")]
    attributes = {
        f"llm.{side}_messages.{number}.message.{name}": value
        for side, number, role, content in said
        for name, value in (("role", role), ("content", content))
    }
    (tmp_path / "a.jsonl").write_text(json.dumps({"span_id": "b", "attributes": attributes}) + "\n")
    [row] = read_examples(tmp_path / "a.jsonl", "x").examples
    assert (row.input, row.output) == ("hi", "yo")
    assert [message.role for message in row.messages] == ["system", "user"]


def test_a_line_separator_of_unicode_is_part_of_a_text(tmp_path: Path) -> None:
    text = "one\u2028two\u0085three"
    assert found(tmp_path / "a.jsonl", json.dumps({"input": text, "output": "x"}, ensure_ascii=False)) == (
        [(text, "x")],
        [],
    )
    (tmp_path / "answers.jsonl").write_text(json.dumps({"id": "1", "output": text}, ensure_ascii=False) + "\n")
    [answer] = recorded_answers(
        tmp_path / "answers.jsonl", [Example(input="a", output="", id="1", group="1", source="x")]
    )
    assert answer is not None and answer.text == text


TWICE = "is there twice, with different values"


@pytest.mark.parametrize("form", ["{}\n" + ROW, "[\n{},\n" + ROW + "]", '[{},{{"input": "a", "output": "x"}}]'])
@pytest.mark.parametrize(
    "row",
    [
        '{"input": "b", "output": "x", "output": "y"}',
        '{"input": "b", "input": "c", "output": "y"}',
        '{"messages": [{"role": "user", "content": "b"}, {"role": "assistant", "content": "x", "content": "y"}]}',
    ],
)
def test_a_key_that_is_there_twice_leaves_no_answer_to_be_guessed(tmp_path: Path, row: str, form: str) -> None:
    (text,), (reason,) = found(tmp_path / "a.json", form.replace("{}", row).replace("{{", "{").replace("}}", "}"))
    assert text == ("a", "x")
    assert TWICE in reason


@pytest.mark.parametrize(
    "row",
    [
        '{"input": "b", "output": "x", "output": "x"}',
        '{"input": "b", "output": "x", "note": 1, "note": 2}',
        '{"input": "b", "output": "x", "extra": {"a": 1, "a": 2}}',
    ],
)
def test_a_key_that_is_there_twice_costs_nothing_if_it_is_not_read_or_says_the_same(tmp_path: Path, row: str) -> None:
    assert found(tmp_path / "a.jsonl", f"{row}\n") == ([("b", "x")], [])


def test_a_conversation_in_a_cell_with_a_key_twice_is_rejected(tmp_path: Path) -> None:
    turns = '[{"role": "user", "content": "b"}, {"role": "assistant", "content": "x", "content": "y"}]'
    cell = turns.replace('"', '""')
    right = turns.replace(', ""content"": ""y""', "").replace(', "content": "y"', "").replace('"', '""')
    examples, rejected = found(tmp_path / "a.csv", f'messages\n"{cell}"\n"{right}"\n')
    assert examples == [("b", "x")] and len(rejected) == 1
