"""Workbooks: which sheet is read, and how to choose another."""

from __future__ import annotations

from datetime import date, datetime, time
from pathlib import Path

import openpyxl
import pyarrow
import pyarrow.parquet
import pytest

from perpetune.curation.readers.options import ReadOptions
from perpetune.curation.readers.reader import opened_table, read_examples
from perpetune.errors import PerpetuneError


@pytest.fixture
def book(tmp_path: Path) -> Path:
    workbook = openpyxl.Workbook()
    workbook.active.title = "Cover"
    for title in ("Tickets", "Old ones"):
        sheet = workbook.create_sheet(title)
        sheet.append(["input", "output"])
        sheet.append([f"of {title}", "x"])
    workbook.save(tmp_path / "book.xlsx")
    return tmp_path / "book.xlsx"


def inputs(path: Path, sheet: str | None = None) -> list[str]:
    return [row.input for row in read_examples(path, "book", ReadOptions(sheet=sheet)).examples]


def test_the_first_sheet_that_is_filled_is_read_and_named(book: Path) -> None:
    assert inputs(book) == ["of Tickets"]
    with opened_table(book) as table:
        assert table.notes == ("sheet: Tickets (not read: Cover, Old ones; choose with --sheet)",)


@pytest.mark.parametrize("sheet", ["Old ones", " old ONES "])
def test_another_is_read_if_it_is_named(book: Path, sheet: str) -> None:
    assert inputs(book, sheet) == ["of Old ones"]


def test_a_sheet_that_is_not_there_or_empty(book: Path, tmp_path: Path) -> None:
    with pytest.raises(PerpetuneError, match="no sheet 'New'") as fault:
        inputs(book, "New")
    assert fault.value.do == "use one of Cover, Tickets, Old ones"
    with pytest.raises(PerpetuneError, match="the sheet 'Cover' is empty"):
        inputs(book, "Cover")
    (tmp_path / "a.csv").write_text("input,output\na,x\n")
    with pytest.raises(PerpetuneError, match="only an Excel workbook has sheets"):
        inputs(tmp_path / "a.csv", "Tickets")


def test_dates_and_times_are_outputs_in_iso_8601(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    for row in (["input", "output"], ["a", date(2024, 5, 6)], ["b", datetime(2024, 5, 6, 7, 8)], ["c", time(3, 4)]):
        book.active.append(row)
    book.save(tmp_path / "dates.xlsx")

    read = read_examples(tmp_path / "dates.xlsx", "dates")

    assert [row.output for row in read.examples] == ["2024-05-06", "2024-05-06T07:08:00", "03:04:00"]
    assert not read.rejected


def test_dates_of_parquet_are_outputs_too_also_inside_of_objects(tmp_path: Path) -> None:
    days = [date(2024, 5, 6), None]
    nested = pyarrow.array([{"due": day, "what": "x"} for day in days])
    for name, column in (("flat", pyarrow.array(days)), ("nested", nested)):
        pyarrow.parquet.write_table(
            pyarrow.table({"input": ["a", "b"], "output": column}), tmp_path / f"{name}.parquet"
        )

    flat, inside = (read_examples(tmp_path / f"{name}.parquet", "x") for name in ("flat", "nested"))

    assert [row.output for row in flat.examples] == ["2024-05-06"]
    assert [row.reason for row in flat.rejected] == ["missing"]
    assert [row.output for row in inside.examples] == ['{"due":"2024-05-06","what":"x"}', '{"due":null,"what":"x"}']


def test_a_failed_formula_is_no_label(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    for row in (["input", "output"], ["a", "#N/A"], ["#REF!", "x"], ["the cell says #N/A", "x"]):
        book.active.append(row)
    book.save(tmp_path / "lookup.xlsx")

    read = read_examples(tmp_path / "lookup.xlsx", "lookup")

    assert [row.input for row in read.examples] == ["the cell says #N/A"]
    assert [(row.line, row.field, row.reason) for row in read.rejected] == [
        (2, "output", "missing"),
        (3, "input", "missing"),
    ]
