from __future__ import annotations

from pathlib import Path

import pytest

from perpetune.curation.readers.options import ReadOptions
from perpetune.curation.readers.reader import ReadResult, opened_table, read_examples

NAMES = {";": "semicolon", "\t": "tab", "|": "bar"}


def read(folder: Path, text: str, name: str = "a.csv", options: ReadOptions | None = None) -> ReadResult:
    path = folder / name
    path.write_bytes(text.encode())
    return read_examples(path, "mine", options or ReadOptions())


def pairs(found: ReadResult) -> list[tuple[str, str]]:
    return [(row.input, row.output) for row in found.examples]


def test_a_record_with_a_cell_missing_costs_all_its_lines(tmp_path: Path) -> None:
    found = read(tmp_path, 'input,output,note\n"Hi,\nmy order, 123, is late\nThanks, Kim",shipping\nplain,billing,ok\n')

    assert pairs(found) == [("plain", "billing")]
    assert [(row.line, row.reason) for row in found.rejected] == [(2, "2 columns, but the header has 3")]


def test_quotes_that_were_not_doubled_cost_one_record(tmp_path: Path) -> None:
    found = read(tmp_path, 'input,output\n"Hi,\nmy order, 123\nsaid "Kim"",shipping\nplain,billing\n')

    assert pairs(found) == [("plain", "billing")]
    assert [row.line for row in found.rejected] == [2]


def test_a_quote_that_is_never_closed_takes_all_that_follows(tmp_path: Path) -> None:
    found = read(tmp_path, 'input,output\na,x\n"b,y\nc,z\nd,z\n')

    assert pairs(found) == [("a", "x")]
    assert [(row.line, row.reason) for row in found.rejected] == [
        (3, "broken CSV: a quote opens and is never closed: the 2 lines after it are quarantined with it")
    ]


@pytest.mark.parametrize("mark", [",", ";", "\t", "|", "^", "~"])
def test_any_separator_is_found(tmp_path: Path, mark: str) -> None:
    text = f'input{mark}output{mark}note\n"a, b; c"{mark}x{mark}1\n'
    path = tmp_path / "a.csv"
    path.write_text(text)
    with opened_table(path) as table:
        assert table.notes == (() if mark == "," else (f"separator: {NAMES.get(mark, mark)}",))
    assert pairs(read_examples(path, "mine")) == [("a, b; c", "x")]


def test_the_separator_may_be_given(tmp_path: Path) -> None:
    found = read(tmp_path, "input:output\na:x\n", options=ReadOptions(separator=":"))

    assert pairs(found) == [("a", "x")]


@pytest.mark.parametrize("name", ["a.txt", "stdin", "a.dat", "a.tsv"])
def test_the_content_tells_the_format_of_a_file_of_unknown_suffix(tmp_path: Path, name: str) -> None:
    assert pairs(read(tmp_path, "input\toutput\na\tx\n", name)) == [("a", "x")]
    assert pairs(read(tmp_path, '{"input": "a", "output": "x"}\n', name)) == [("a", "x")]
    assert pairs(read(tmp_path, '[\n{"input": "a", "output": "x"}]', "a.csv")) == [("a", "x")]


def test_damage_in_a_column_that_is_not_read_costs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"input,output,comment\na,x, \xff \nb \xff,y,\n")

    found = read_examples(path, "mine")

    assert pairs(found) == [("a", "x")]
    assert [row.reason for row in found.rejected] == ["not UTF-8"]


def test_lines_of_old_macs(tmp_path: Path) -> None:
    assert pairs(read(tmp_path, "input,output\ra,x\rb,y\r")) == [("a", "x"), ("b", "y")]


def test_quotes_behind_backslashes_as_spark_writes_them(tmp_path: Path) -> None:
    path = tmp_path / "spark.csv"
    path.write_text(
        'input,output\n"he said \\"hi, you\\"",a\n"ends with \\"it\\"",b\nC:\\new\\tab,c\n"a\\"\nline, of it",d\n'
        '"C:\\dir\\\\",e\n"cell is missing \\"\nx,y"\nlast,f\n'
    )

    read = read_examples(path, "spark")

    assert [(row.input, row.output) for row in read.examples] == [
        ('he said "hi, you"', "a"), ('ends with "it"', "b"), ("C:\\new\\tab", "c"), ('a"\nline, of it', "d"),
        ("C:\\dir\\", "e"), ("last", "f"),
    ]  # fmt: skip
    assert [(row.line, row.reason) for row in read.rejected] == [(8, "1 columns, but the header has 2")]
    with opened_table(path) as table:
        assert table.notes == ("quotes in cells are behind backslashes",)


def test_a_backslash_before_the_end_of_a_cell_is_a_character(tmp_path: Path) -> None:
    path = tmp_path / "paths.csv"
    path.write_text('input,output\n"C:\\dir\\",a\n"say ""\\"" here",b\nbroken,row,c\n')

    read = read_examples(path, "paths")

    assert [(row.input, row.output) for row in read.examples] == [("C:\\dir\\", "a"), ('say "\\" here', "b")]
    assert len(read.rejected) == 1
