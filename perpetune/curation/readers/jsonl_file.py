"""Reading JSON: lines of objects, lists, and indented objects; an invalid record is rejected alone."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from perpetune.curation.readers.json_values import TOO_DEEP, decoded_line, is_value, json_row, json_values
from perpetune.curation.readers.table import EVERY_COLUMN, Row, Table, UnreadableRow, WantedColumns
from perpetune.curation.readers.text_encoding import TextEncoding, text_lines
from perpetune.errors import PerpetuneError

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_MARK = "\ufeff"


def jsonl_table(data: bytes, path: Path) -> Table:
    """The objects of a JSON Lines file in UTF-8. Raises PerpetuneError if no line is a JSON object."""
    encoding = TextEncoding("utf-8-sig" if data.startswith(_BYTE_ORDER_MARK) else "utf-8")
    rows = tuple(_rows(text_lines(io.BytesIO(data), encoding, path, newline="\n"), EVERY_COLUMN))
    if not any(isinstance(row, Row) for row in rows) and data.lstrip().startswith(b"["):
        raise PerpetuneError(
            "the file is a JSON list, not JSON Lines",
            where=str(path),
            do=f"convert it: jq -c '.[]' {path.name} > {path.stem}.jsonl",
        )
    return Table(columns_of(rows, path), rows)


def json_table(file: BinaryIO, encoding: TextEncoding, path: Path, wanted: WantedColumns) -> Table:
    """The objects of JSON Lines, read line by line, or of a JSON list or indented objects, read as a whole.

    Bytes that cannot be decoded count only in `wanted` keys.
    """
    lines = text_lines(file, encoding, path, newline="\n")
    start: list[str] = []
    for line in lines:
        start.append(line)
        if line.strip():
            break
    first = "".join(start).strip()
    if not first.startswith(("{", "[")) or (first.startswith("{") and is_value(first)):
        return Table((), _rows(chain(start, lines), wanted))
    text = "".join(chain(start, lines))
    if first.startswith("[") or first == "{" or is_value(text, whole=False):
        return Table((), json_values(text, wanted))
    return Table((), _rows(io.StringIO(text, newline="\n"), wanted))


def columns_of(rows: Sequence[Row | UnreadableRow], path: Path) -> tuple[str, ...]:
    """All keys of the objects. Raises PerpetuneError if there is no object."""
    bad = [row for row in rows if isinstance(row, UnreadableRow)]
    if bad and len(bad) == len(rows):
        raise no_object(bad[0], len(bad), path)
    return tuple(dict.fromkeys(key for row in rows if isinstance(row, Row) for key in row.values))


def no_object(first: UnreadableRow, count: int, path: Path) -> PerpetuneError:
    """The error for a file of `count` records, none of which is a JSON object."""
    if "\0" in first.raw:
        return PerpetuneError(f"the file is not text, as {path.suffix} would be", where=str(path))
    return PerpetuneError(
        f"none of its {count:,} lines is a JSON object; line {first.line}: {first.reason}",
        where=str(path),
        do='write one example a line: {"input": "...", "output": "..."}',
    )


def _rows(lines: Iterable[str], wanted: WantedColumns) -> Iterator[Row | UnreadableRow]:
    for number, line in enumerate(lines, start=1):
        raw = line.rstrip("\r\n").removeprefix(_MARK)  # which stays in the middle if files are put together
        if raw.strip():
            yield _row(number, raw, wanted)


def _row(number: int, raw: str, wanted: WantedColumns) -> Row | UnreadableRow:
    try:
        value = decoded_line(raw)
    except json.JSONDecodeError as fault:
        return UnreadableRow(number, raw, f"broken JSON at character {fault.pos + 1}: {fault.msg}")
    except RecursionError:
        return UnreadableRow(number, raw, f"unreadable JSON: {TOO_DEEP}")
    except ValueError as fault:
        return UnreadableRow(number, raw, f"unreadable JSON: {fault}")
    return json_row(number, raw, value, wanted)
