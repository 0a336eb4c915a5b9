"""Reading JSON Lines; an invalid line is rejected alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NoReturn

from perpetune.curation.readers.table import Row, Table, UnreadableRow
from perpetune.errors import PerpetuneError

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def jsonl_table(data: bytes, path: Path) -> Table:
    """The objects of a JSON Lines file. Raises PerpetuneError if no line is a JSON object."""
    lines = data.removeprefix(_BYTE_ORDER_MARK).split(b"\n")
    rows = [_row(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    good = [row for row in rows if isinstance(row, Row)]
    if not good:
        _refuse(data, rows, path)
    return Table(tuple(dict.fromkeys(key for row in good for key in row.values)), tuple(rows))


def _row(number: int, line: bytes) -> Row | UnreadableRow:
    raw = line.rstrip(b"\r").decode("utf-8", "backslashreplace")
    try:
        value = json.loads(line.decode("utf-8"), parse_constant=_no_constant)
    except UnicodeDecodeError as fault:
        return UnreadableRow(number, raw, f"not UTF-8 at byte {fault.start + 1}")
    except json.JSONDecodeError as fault:
        return UnreadableRow(number, raw, f"broken JSON at character {fault.pos + 1}: {fault.msg}")
    except (ValueError, RecursionError) as fault:
        return UnreadableRow(number, raw, f"unreadable JSON: {fault}")
    if not isinstance(value, dict):
        return UnreadableRow(number, raw, "not a JSON object")
    return Row(number, raw, value)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value")


def _refuse(data: bytes, rows: list[Row | UnreadableRow], path: Path) -> NoReturn:
    if b"\0" in data:
        raise PerpetuneError(f"the file is not text, as {path.suffix} would be", where=str(path))
    if data.lstrip().startswith(b"["):
        raise PerpetuneError(
            "the file is a JSON list, not JSON Lines",
            where=str(path),
            do=f"convert it: jq -c '.[]' {path.name} > {path.stem}.jsonl",
        )
    first = next(row for row in rows if isinstance(row, UnreadableRow))
    raise PerpetuneError(
        f"none of its {len(rows):,} lines is a JSON object; line {first.line}: {first.reason}",
        where=str(path),
        do='write one example a line: {"input": "...", "output": "..."}',
    )
