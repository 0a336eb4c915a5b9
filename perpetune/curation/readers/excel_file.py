"""Reading one sheet of an Excel workbook (.xlsx), whose first filled row is the header."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from datetime import datetime, time
from pathlib import Path
from typing import BinaryIO

from perpetune.curation.readers.table import Row, Table
from perpetune.errors import PerpetuneError

_ERRORS = frozenset({"#NULL!", "#DIV/0!", "#VALUE!", "#REF!", "#NAME?", "#NUM!", "#N/A"})
"""What a cell holds whose formula failed, such as a lookup of a label: no value (ISO/IEC 29500-1, 18.18.11)."""


def excel_table(file: BinaryIO, path: Path, sheet: str | None = None) -> Table:
    """The rows of this sheet, or of the first one that is not empty; `line` is the number of the row in the sheet.

    Raises PerpetuneError if the workbook cannot be read, or has no such sheet.
    """
    # Late: most workspaces have no Excel file.
    import openpyxl

    try:
        book = openpyxl.load_workbook(file, read_only=True, data_only=True)
        sheets = {each.title: _filled(each.iter_rows(values_only=True)) for each in book.worksheets}
        names = tuple(sheets) if sheet is None else (_title(sheet, tuple(sheets), path),)
        title, header = next(((name, first) for name in names if (first := next(sheets[name], None))), ("", None))
    except (zipfile.BadZipFile, KeyError, ValueError, OSError) as fault:
        raise PerpetuneError(
            f"not a readable Excel workbook: {fault}", where=str(path), do="save it as .xlsx"
        ) from None
    if header is None:
        what = "the file is empty" if sheet is None else f"the sheet {sheet!r} is empty"
        raise PerpetuneError(what, where=str(path), do="add at least one example")
    columns = tuple(str(cell).strip() if cell is not None else "" for cell in header[1])
    others = [name for name in sheets if name != title]
    notes = (f"sheet: {title} (not read: {', '.join(others)}; choose with --sheet)",) if others else ()
    return Table(columns, _rows(columns, sheets[title]), notes)


def _title(sheet: str, titles: tuple[str, ...], path: Path) -> str:
    """The title as the workbook has it: people do not see blanks around it, and case."""
    found = [title for title in titles if title == sheet] or [
        title for title in titles if title.strip().casefold() == sheet.strip().casefold()
    ]
    if not found:
        raise PerpetuneError(
            f"the workbook has no sheet {sheet!r}", where=str(path), do=f"use one of {', '.join(titles)}"
        )
    return found[0]


def _filled(rows: Iterator[Sequence[object]]) -> Iterator[tuple[int, Sequence[object]]]:
    return ((number, row) for number, row in enumerate(rows, start=1) if any(cell is not None for cell in row))


def _rows(columns: tuple[str, ...], rows: Iterator[tuple[int, Sequence[object]]]) -> Iterator[Row]:
    for number, cells in rows:
        yield Row(number, None, {name: _value(cell) for name, cell in zip(columns, cells, strict=False) if name})


def _value(cell: object) -> object:
    """The value of a cell. A date is stored as its midnight."""
    if isinstance(cell, datetime) and cell.time() == time.min:
        return cell.date()
    return None if cell in _ERRORS else cell
