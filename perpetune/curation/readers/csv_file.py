"""Reading CSV with a header line. Line numbers are correct even with line breaks in quotes."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path

from perpetune.curation.readers.row import MAX_CHARS
from perpetune.curation.readers.table import Row, Table, UnreadableRow
from perpetune.errors import PerpetuneError

_UNDECODABLE = re.compile("[\udc80-\udcff]")


def csv_table(data: bytes, path: Path) -> Table:
    """The rows of a CSV file, with the columns of its header.

    If a record cannot be parsed (such as an open quote), its first line is rejected and reading continues after it.
    Raises PerpetuneError if the header cannot be read.
    """
    # Bytes that are not UTF-8 become lone surrogates, which mark their record.
    text = data.decode("utf-8-sig", "surrogateescape")
    lines = list(io.StringIO(text, newline=""))
    usual_limit = csv.field_size_limit(MAX_CHARS)
    try:
        return _table(lines, path)
    finally:
        csv.field_size_limit(usual_limit)


def _table(lines: list[str], path: Path) -> Table:
    start = next((position for position, line in enumerate(lines) if line.strip()), 0)
    try:
        header, used = _record(lines, start)
    except csv.Error as fault:
        raise PerpetuneError(f"the header line cannot be read: {fault}", where=f"{path}:{start + 1}") from None
    columns = tuple(name.strip() for name in header)
    if any("\0" in name or _UNDECODABLE.search(name) for name in columns):
        raise PerpetuneError("the header line is not UTF-8 text", where=f"{path}:{start + 1}", do="save it as UTF-8")
    return Table(columns, tuple(_rows(lines, start + used, columns)))


def _rows(lines: list[str], start: int, columns: tuple[str, ...]) -> Iterator[Row | UnreadableRow]:
    while start < len(lines):
        if not lines[start].strip():
            start += 1
            continue
        row, used = _row(lines, start, columns)
        yield row
        start += used


def _row(lines: list[str], start: int, columns: tuple[str, ...]) -> tuple[Row | UnreadableRow, int]:
    """The record at line `start`, and its number of lines."""
    try:
        fields, used = _record(lines, start)
    except csv.Error as fault:
        return UnreadableRow(start + 1, lines[start].rstrip("\r\n"), f"broken CSV: {fault}"), 1
    raw = "".join(lines[start : start + used]).rstrip("\r\n")
    if len(fields) != len(columns):
        # A stray quote can span lines: reject only the first.
        reason = f"{len(fields)} columns, but the header has {len(columns)}"
        return UnreadableRow(start + 1, raw, reason), 1
    if _UNDECODABLE.search(raw):
        return UnreadableRow(start + 1, raw, "not UTF-8"), used
    return Row(start + 1, raw, dict(zip(columns, fields, strict=True))), used


def _record(lines: list[str], start: int) -> tuple[list[str], int]:
    reader = csv.reader((lines[position] for position in range(start, len(lines))), strict=True)
    return next(reader), reader.line_num
