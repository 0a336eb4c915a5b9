"""For every format: each record is an example or rejected, and no example is one that nobody wrote."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from perpetune.curation.readers.reader import ReadResult, read_examples

Pair = tuple[str, str]
Quoting = Literal[0, 1, 2, 3]

# Line breaks, separators, quotes, brackets, NUL, marks, letters of many scripts, and an inner line that looks like a row.
TEXT = st.lists(
    st.sampled_from(
        [*'a7 ,;\t|"{}[]:\\', "\n", "\r\n", "\r", "\0", "\ufeff", "\u2028", "é", "ß", "日本", "🙂", "\nx,y,z\n"]
    ),
    max_size=12,
).map("".join)
PAIRS = st.lists(st.tuples(TEXT, TEXT), max_size=6)
GOOD = ("good", "yes")


@dataclass(frozen=True)
class Record:
    """A row of a file, and how it is spoiled: whole, one cell missing, or one cell too many."""

    pair: Pair
    cells: int = 3


RECORDS = st.lists(st.builds(Record, st.tuples(TEXT, TEXT), st.sampled_from([3, 3, 3, 2, 4])), max_size=6)


def usable(pair: Pair) -> bool:
    return all(text.strip() and "\0" not in text for text in pair)


def check(found: ReadResult, good: list[Pair], records: int) -> None:
    assert Counter((row.input, row.output) for row in found.examples) == Counter(filter(usable, good))
    assert len(found.examples) + len(found.rejected) == records


def read(folder: pytest.TempPathFactory, name: str, data: bytes) -> ReadResult:
    path = folder.mktemp("hostile") / name
    path.write_bytes(data)
    return read_examples(path, "mine")


def csv_bytes(records: list[Record], separator: str, ending: str, quoting: Quoting) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=separator, lineterminator=ending, quoting=quoting)
    writer.writerow(["input", "output", "note"])
    for record in records:
        writer.writerow([*record.pair, "n", "m"][: record.cells])
    return text.getvalue()


@settings(max_examples=150, deadline=None)
@given(
    RECORDS,
    st.sampled_from([",", ";", "\t", "|"]),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
def test_csv(
    tmp_path_factory: pytest.TempPathFactory,
    records: list[Record],
    separator: str,
    ending: str,
    quoting: Quoting,
    encoding: str,
) -> None:
    rows = [*records, Record(GOOD)]
    found = read(tmp_path_factory, "a.csv", csv_bytes(rows, separator, ending, quoting).encode(encoding))

    whole = [record.pair for record in rows if record.cells == 3]
    if quoting == csv.QUOTE_MINIMAL and ending == "\n":  # the writer then does not quote a carriage return
        whole = [
            pair for pair in whole if not any("\r" in text and not set(text) & {"\n", '"', separator} for text in pair)
        ]
    check(found, whole, len(rows))


@settings(max_examples=150, deadline=None)
@given(RECORDS, st.integers(min_value=0, max_value=400))
def test_a_csv_that_is_cut_off_gives_no_row_that_nobody_wrote(
    tmp_path_factory: pytest.TempPathFactory, records: list[Record], kept: int
) -> None:
    rows = [Record(GOOD), *(record for record in records if record.cells <= 3)]  # a longer one may be cut to a good one
    data = csv_bytes(rows, ",", "\n", csv.QUOTE_ALL).encode()
    whole = len(csv_bytes(rows[:1], ",", "\n", csv.QUOTE_ALL))

    found = read(tmp_path_factory, "a.csv", data[: whole + kept])

    written = Counter(record.pair for record in rows if record.cells == 3 and usable(record.pair))
    assert not Counter((row.input, row.output) for row in found.examples) - written


@settings(max_examples=100, deadline=None)
@given(PAIRS, st.sampled_from(["\n", "\r\n"]), st.booleans(), st.sampled_from([None, 2]), st.sampled_from(["", ","]))
def test_json(
    tmp_path_factory: pytest.TempPathFactory,
    pairs: list[Pair],
    ending: str,
    ascii: bool,
    indent: int | None,
    trailing: str,
) -> None:
    rows = [*pairs, GOOD]
    objects = [{"input": input, "output": output, "score": float("nan")} for input, output in rows]
    lines = ending.join(json.dumps(row, ensure_ascii=ascii) for row in objects)
    listed = json.dumps(objects, ensure_ascii=ascii, indent=indent)
    spread = ending.join(json.dumps(row, ensure_ascii=ascii, indent=2) for row in objects)
    by_line = f"[{ending}" + f",{ending}".join(json.dumps(row) for row in objects) + f"{trailing}{ending}]"

    for text in (lines, listed[:-1] + trailing + "]", spread, by_line):
        check(read(tmp_path_factory, "a.json", text.encode()), rows, len(rows))
        check(read(tmp_path_factory, "a.jsonl", text.encode("utf-8-sig")), rows, len(rows))


BROKEN = [
    '{"input": "a", "output": oops}',
    '{"input": "a", "output": "x", "meta": {"input": "inner", "output": "inner"}, "z": }',
    '{"input": "a" "output": "x", "all": [{"input": "inner", "output": "inner"}]}',
    '{"input": "a, "output": "x"}',
    "oops",
    "17",
]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.one_of(st.sampled_from(BROKEN), st.tuples(TEXT, TEXT)), max_size=6))
def test_json_lists_with_broken_elements(tmp_path_factory: pytest.TempPathFactory, elements: list[str | Pair]) -> None:
    rows = [GOOD, *elements, GOOD]
    pairs = [row for row in rows if not isinstance(row, str)]
    texts = [row if isinstance(row, str) else json.dumps({"input": row[0], "output": row[1]}) for row in rows]

    check(read(tmp_path_factory, "a.json", ("[\n" + ",\n".join(texts) + "\n]").encode()), pairs, len(rows))
    check(read(tmp_path_factory, "a.jsonl", "\n".join(texts).encode()), pairs, len(rows))


@settings(max_examples=50, deadline=None)
@given(PAIRS)
def test_parquet(tmp_path_factory: pytest.TempPathFactory, pairs: list[Pair]) -> None:
    rows = [*pairs, GOOD]
    path = tmp_path_factory.mktemp("hostile") / "a.parquet"
    columns = {
        "input": pyarrow.array([input for input, _ in rows], pyarrow.large_string()),
        "output": pyarrow.array([output.encode() for _, output in rows], pyarrow.binary()),
        "when": pyarrow.array([2**60] * len(rows), pyarrow.timestamp("us")),
    }
    pyarrow.parquet.write_table(pyarrow.table(columns), path, row_group_size=2)

    check(read_examples(path, "mine"), rows, len(rows))


@settings(max_examples=30, deadline=None)
@given(PAIRS)
def test_excel(tmp_path_factory: pytest.TempPathFactory, pairs: list[Pair]) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    writable = [pair for pair in pairs if "\0" not in "".join(pair) and "\r" not in "".join(pair)]
    rows = [*writable, GOOD]
    book = openpyxl.Workbook()
    for row in [("input", "output", "note"), *((*pair, "n") for pair in rows)]:
        book.active.append(row)
    for cells in book.active.iter_rows():
        for cell in cells:
            cell.data_type = "s"
    path = tmp_path_factory.mktemp("hostile") / "a.xlsx"
    book.save(path)

    check(read_examples(path, "mine"), rows, len(rows))


@pytest.mark.parametrize(
    ("suffix", "compress"),
    [("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress), ("zst", zstandard.compress)],
)
def test_compressed_files_are_read_and_damaged_ones_refused(
    tmp_path: Path, suffix: str, compress: Callable[[bytes], bytes]
) -> None:
    rows = [Record((f"row {number}", "x")) for number in range(500)]
    data = compress(csv_bytes(rows, ",", "\n", csv.QUOTE_ALL).encode())
    path = tmp_path / f"a.csv.{suffix}"
    path.write_bytes(data)
    check(read_examples(path, "mine"), [record.pair for record in rows], 500)

    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(Exception, match="damaged or cut off"):
        read_examples(path, "mine")


def test_a_row_of_empty_cells_between_tabs_is_a_row(tmp_path_factory: pytest.TempPathFactory) -> None:
    found = read(tmp_path_factory, "mine.tsv", b"input\toutput\tnote\n\t\t\ngood\tyes\t1\n\n")
    check(found, [GOOD], records=2)
