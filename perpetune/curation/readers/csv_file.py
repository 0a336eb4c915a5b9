"""Reading CSV, TSV and the like with a header line. Line numbers are correct even with line breaks in quotes."""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from perpetune.curation.readers.row import MAX_CHARS
from perpetune.curation.readers.table import Row, Table, UnreadableRow, WantedColumns
from perpetune.curation.readers.text_encoding import UNDECODABLE, TextEncoding, text_lines
from perpetune.errors import PerpetuneError

_BREAK = re.compile(rb"\r\n|\r|\n")
_QUOTES = re.compile('"+')
_ESCAPED = re.compile(r'(\\+)"')
_SAMPLE = 1_000  # lines
_USUAL = (",", ";", "\t", "|")
_NAMES = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
_BROKEN, _NOT_CLOSED = "broken CSV: ", "a quote opens and is never closed"
_NO_END = "unexpected end of data"
_SAID = re.compile(r"sep=(.)")
"""The first line of a file for Excel says the separator."""
_LONE_RETURN = "new-line character seen"


def csv_table(
    file: BinaryIO, encoding: TextEncoding, path: Path, wanted: WantedColumns, separator: str | None = None
) -> Table:
    """The rows of a CSV file, with the columns of its header.

    The separator is the one that gives the header most known columns. A record that cannot be parsed is
    rejected with all its lines, so that no line of a quoted cell becomes a row. Quotes in cells are doubled (RFC 4180), or
    behind a backslash, as Spark and MySQL write them, if more of the first records can be read so. Raises PerpetuneError if the
    header cannot be read.
    """
    lines = _Lines(text_lines(file, encoding, path, newline=_line_break(file)))
    while lines.has(0) and not lines[0].strip():
        lines.drop(1)
    if not lines.has(0):
        raise PerpetuneError("the file is empty", where=str(path), do="add at least one example")
    if said := _SAID.fullmatch(lines[0].strip("\ufeff\r\n")):
        lines.drop(1)
        separator = separator or said[1]
        if not lines.has(0):
            raise PerpetuneError("the file is empty", where=str(path), do="add at least one example")
    start = lines.number
    separator = separator or _separator(lines[0], wanted, path)
    try:
        header, used = _record(lines, separator)
    except csv.Error as fault:
        raise PerpetuneError(f"the header line cannot be read: {fault}", where=f"{path}:{start}") from None
    columns = tuple(name.strip() for name in header)
    if any("\0" in name or UNDECODABLE.search(name) for name in columns):
        raise PerpetuneError("the header line is not UTF-8 text", where=f"{path}:{start}", do="save it as UTF-8")
    lines.drop(used)
    notes = () if separator == "," or len(columns) == 1 else (f"separator: {_NAMES.get(separator, separator)}",)
    if _has_backslashes(lines, columns, separator):
        lines.backslashes = True
        notes = (*notes, "quotes in cells are behind backslashes")
    return Table(columns, _rows(lines, columns, separator, wanted.of(columns)), notes)


def _has_backslashes(lines: _Lines, columns: tuple[str, ...], separator: str) -> bool:
    """Whether the first records are broken with doubled quotes, and more can be read if a backslash escapes a quote."""
    sample = [lines[number] for number in range(_SAMPLE) if lines.has(number)]
    if not any('\\"' in line for line in sample):
        return False
    doubled, escaped = (
        list(_rows(_Lines(sample, backslashes=backslashes), columns, separator, ())) for backslashes in (False, True)
    )
    # A quote that is never closed is the mark of a file, or of a sample, that is cut off.
    broken = any(
        isinstance(row, UnreadableRow) and row.reason.startswith(_BROKEN) and _NOT_CLOSED not in row.reason
        for row in doubled
    )
    return broken and _readable(escaped) > _readable(doubled)


def _readable(rows: Iterable[Row | UnreadableRow]) -> int:
    return sum(isinstance(row, Row) for row in rows)


def _line_break(file: BinaryIO) -> str:
    """What ends the lines, by the first one: a carriage return alone, as on old Macs, or else a line feed.

    In a file with line feeds a return alone is part of a cell, and must not begin a row.
    """
    head = file.read(1 << 16).replace(b"\0", b"")
    file.seek(0)
    found = _BREAK.search(head)
    return "\r" if found and found.group() == b"\r" else "\n"


class _Lines:
    """Lines with a view ahead; `number` is that of the first line, from 1. `backslashes` escape quotes in them."""

    def __init__(self, lines: Iterable[str], *, backslashes: bool = False) -> None:
        self.backslashes = backslashes
        self._lines = iter(lines)
        self._ahead: deque[str] = deque()
        self.number = 1

    def has(self, position: int) -> bool:
        while len(self._ahead) <= position:
            line = next(self._lines, None)
            if line is None:
                return False
            self._ahead.append(line)
        return True

    def __getitem__(self, position: int) -> str:
        if not self.has(position):
            raise IndexError(position)
        return self._ahead[position]

    def drop(self, count: int) -> str:
        """The first lines, which are then gone."""
        dropped = [self._ahead.popleft() for _ in range(count)]
        self.number += count
        return "".join(dropped).rstrip("\r\n")


def _rows(
    lines: _Lines, columns: tuple[str, ...], separator: str, wanted: Container[str]
) -> Iterator[Row | UnreadableRow]:
    while lines.has(0):
        if lines[0].strip() or separator in lines[0]:  # tabs alone are a row of empty cells
            yield _row(lines, columns, separator, wanted)
        else:
            lines.drop(1)


def _row(lines: _Lines, columns: tuple[str, ...], separator: str, wanted: Container[str]) -> Row | UnreadableRow:
    line = lines.number
    try:
        fields, used = _record(lines, separator)
    except csv.Error as fault:
        return _broken(lines, separator, str(fault))
    raw = lines.drop(used)
    if len(fields) != len(columns):
        return UnreadableRow(line, raw, f"{len(fields)} columns, but the header has {len(columns)}")
    values = dict(zip(columns, fields, strict=True))
    if UNDECODABLE.search(raw) and any(name in wanted and UNDECODABLE.search(values[name]) for name in columns):
        return UnreadableRow(line, raw, "not UTF-8")
    return Row(line, raw, values)


def _record(lines: _Lines, separator: str) -> tuple[list[str], int]:
    """The fields of the record at the first line, and its number of lines. Raises csv.Error."""
    with _field_limit():
        reader = csv.reader(_following(lines), delimiter=separator, strict=True)
        return next(reader), reader.line_num


@contextmanager
def _field_limit() -> Iterator[None]:
    usual = csv.field_size_limit(MAX_CHARS)
    try:
        yield
    finally:
        csv.field_size_limit(usual)


def _following(lines: _Lines) -> Iterator[str]:
    """The lines from the first, with quotes in cells doubled."""
    position = 0
    while lines.has(position):
        yield _ESCAPED.sub(_doubled, lines[position]) if lines.backslashes else lines[position]
        position += 1


def _doubled(found: re.Match[str]) -> str:
    """Two backslashes are one, and one that is left over escapes the quote."""
    kept, escapes = divmod(len(found[1]), 2)
    return "\\" * kept + '"' * (1 + escapes)


def _broken(lines: _Lines, separator: str, fault: str) -> UnreadableRow:
    """The broken record at the first line, with all its lines."""
    line = lines.number
    count = None if fault == _NO_END else _broken_lines(lines, separator)
    if fault.startswith(_LONE_RETURN):
        fault = "a carriage return outside of quotes, while other lines end with a line feed"
    if count is not None:
        return UnreadableRow(line, lines.drop(count), f"{_BROKEN}{fault}")
    raw = lines.drop(1)
    lost = 0
    while lines.has(0):
        lines.drop(1)
        lost += 1
    after = f": the {lost:,} lines after it are quarantined with it" if lost else ""
    return UnreadableRow(line, raw, f"{_BROKEN}{_NOT_CLOSED}{after}")


@dataclass(frozen=True)
class _Cell:
    """Where a line ends: inside a quoted cell or not, and whether that cell has a quote that its writer did not double."""

    is_open: bool = False
    undoubled: bool = False


def _broken_lines(lines: _Lines, separator: str) -> int | None:
    """How many lines the record at the first line has; None if its quote is not closed.

    A quote that opens before another has closed shows that the earlier one was a stray character of its line.
    """
    cell, characters = _Cell(), 0
    for number, line in enumerate(_following(lines), start=1):
        characters += len(line)
        after = _after(line, cell, separator)
        if after is None:
            return 1
        if not after.is_open:
            return number
        if characters > MAX_CHARS:
            break
        cell = after
    return None


def _after(line: str, cell: _Cell, separator: str) -> _Cell | None:
    """The cell that is open behind this line; None if the quote that opened it was a stray one.

    Two quotes are one of the text. In a cell whose writer did not double them, the last of any number closes it.
    """
    position = 0
    while position < len(line):
        if cell.is_open:
            marks = _QUOTES.search(line, position)
            if marks is None:
                break
            before, behind = line[: marks.start()][-1:], line[marks.end() : marks.end() + 1]
            is_odd = len(marks.group()) % 2 == 1
            closes = (is_odd or cell.undoubled) and behind in ("", separator, "\r", "\n")
            if is_odd and before in ("", separator) and not closes:
                return None
            cell = _Cell() if closes else _Cell(True, cell.undoubled or is_odd)
            position = marks.end() + closes
        elif line[position] == '"':
            cell, position = _Cell(True), position + 1
        else:
            end = line.find(separator, position)
            position = len(line) if end < 0 else end + 1
    return cell


def _separator(header: str, wanted: WantedColumns, path: Path) -> str:
    others = [
        mark for mark in dict.fromkeys(header) if not mark.isalnum() and mark not in " \"'_-.\r\n" + "".join(_USUAL)
    ]
    usual = sorted(_USUAL, key=lambda mark: mark != "\t") if path.suffix.lower() in (".tsv", ".tab") else list(_USUAL)

    def known_and_all(mark: str) -> tuple[int, int]:
        try:
            names = [name.strip() for name in next(csv.reader([header], delimiter=mark))]
        except csv.Error:
            return 0, 0
        return sum(name in wanted.known for name in names), len(names) if mark in _USUAL else 0

    return max([*usual, *others], key=known_and_all)
