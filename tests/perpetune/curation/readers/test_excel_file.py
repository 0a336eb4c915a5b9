"""Workbooks: which sheet is read, and how to choose another."""

from __future__ import annotations

from pathlib import Path

import openpyxl
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
