"""Reading the first filled sheet of an Excel workbook (.xlsx), whose first row is the header."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from perpetune.curation.readers.table import Row, Table
from perpetune.errors import PerpetuneError


def excel_table(file: BinaryIO, path: Path) -> Table:
    """The rows, streamed; `line` is the number of the row in the sheet. Raises PerpetuneError if it cannot be read."""
    # Late: most workspaces have no Excel file.
    import openpyxl

    try:
        book = openpyxl.load_workbook(file, read_only=True, data_only=True)
        sheets = {sheet.title: _filled(sheet.iter_rows(values_only=True)) for sheet in book.worksheets}
        title, header = next(
            ((title, first) for title, rows in sheets.items() if (first := next(rows, None))), ("", None)
        )
    except (zipfile.BadZipFile, KeyError, ValueError, OSError) as fault:
        raise PerpetuneError(
            f"not a readable Excel workbook: {fault}", where=str(path), do="save it as .xlsx"
        ) from None
    if header is None:
        raise PerpetuneError("the file is empty", where=str(path), do="add at least one example")
    columns = tuple(str(cell).strip() if cell is not None else "" for cell in header[1])
    others = [name for name in sheets if name != title]
    notes = (f"sheet: {title} (not read: {', '.join(others)})",) if others else ()
    return Table(columns, _rows(columns, sheets[title]), notes)


def _filled(rows: Iterator[Sequence[object]]) -> Iterator[tuple[int, Sequence[object]]]:
    return ((number, row) for number, row in enumerate(rows, start=1) if any(cell is not None for cell in row))


def _rows(columns: tuple[str, ...], rows: Iterator[tuple[int, Sequence[object]]]) -> Iterator[Row]:
    for number, cells in rows:
        yield Row(number, None, {name: cell for name, cell in zip(columns, cells, strict=False) if name})
