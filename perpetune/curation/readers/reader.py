"""Reading a file of examples. Invalid rows are rejected one by one; only an unusable file is an error."""

from __future__ import annotations

import json
from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path

from perpetune.curation.quarantine import Rejected
from perpetune.curation.readers.csv_file import csv_table
from perpetune.curation.readers.jsonl_file import jsonl_table
from perpetune.curation.readers.row import InvalidRow, example_of
from perpetune.curation.readers.table import Row, Table, UnreadableRow
from perpetune.curation.text import shortened
from perpetune.errors import PerpetuneError
from perpetune.records import Example

FIELDS = ("input", "output", "references", "messages", "id", "group", "time", "source")
SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".parquet")

_INPUT_NAMES = "input text prompt question instruction sentence utterance query message review comment content title"
_OUTPUT_NAMES = "output label category answer response completion target intent class sentiment reply summary expected"


@dataclass(frozen=True)
class ReadResult:
    """The examples of a file, and its rejected rows."""

    examples: tuple[Example, ...]
    rejected: tuple[Rejected, ...]


def read_examples(path: Path, source: str) -> ReadResult:
    """Read JSONL, CSV or Parquet, chosen by the file's suffix.

    `source` is for rows without a `source`. Invalid rows are returned with line, field and reason. Raises
    PerpetuneError if the whole file is unusable: missing, empty, of another format than its suffix, or without the
    required columns.
    """
    table = read_table(path, FIELDS)
    rows = list(_examples(table, path, source))
    return ReadResult(
        examples=tuple(row for row in rows if isinstance(row, Example)),
        rejected=tuple(row for row in rows if isinstance(row, Rejected)),
    )


def read_table(path: Path, wanted: Container[str]) -> Table:
    """The unvalidated rows of a file; of Parquet only the `wanted` columns. Raises PerpetuneError as `read_examples`."""
    if path.suffix.lower() not in SUFFIXES:
        raise PerpetuneError(
            f"files with the suffix {path.suffix or '(none)'} cannot be read",
            where=str(path),
            do=f"save it as one of {', '.join(SUFFIXES)}",
        )
    table = _table(_bytes(path), path, wanted)
    _check_columns(table.columns, path)
    return table


def rejected(row: Row | UnreadableRow, path: Path, reason: str, field: str | None = None) -> Rejected:
    """The rejected row, with its content."""
    raw = row.raw or (json.dumps(row.values, ensure_ascii=False, default=str) if isinstance(row, Row) else "")
    return Rejected(file=path.name, line=row.line, field=field, reason=reason, raw=shortened(raw))


def _bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise PerpetuneError("the file does not exist", where=str(path)) from None
    except OSError as fault:
        raise PerpetuneError(f"the file cannot be read: {fault.strerror}", where=str(path)) from None
    if not data.strip():
        raise PerpetuneError("the file is empty", where=str(path), do="add at least one example")
    return data


def _table(data: bytes, path: Path, wanted: Container[str]) -> Table:
    if path.suffix.lower() == ".parquet":
        # Late: pyarrow is slow to import, and most workspaces have no Parquet.
        from perpetune.curation.readers.parquet_file import parquet_table

        return parquet_table(data, path, wanted)
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise PerpetuneError("the text is encoded as UTF-16", where=str(path), do="save it as UTF-8")
    return csv_table(data, path) if path.suffix.lower() == ".csv" else jsonl_table(data, path)


def _examples(table: Table, path: Path, source: str) -> Iterator[Example | Rejected]:
    for row in table.rows:
        if isinstance(row, UnreadableRow):
            yield rejected(row, path, row.reason)
            continue
        try:
            yield example_of(row.values, source)
        except InvalidRow as fault:
            yield rejected(row, path, fault.reason, fault.field)


def _check_columns(columns: tuple[str, ...], path: Path) -> None:
    known = [name for name in columns if name in {"input", "output", "messages"}]
    twice = next((name for name in known if known.count(name) > 1), None)
    if twice:
        raise PerpetuneError(f"the column `{twice}` occurs twice", where=str(path), do="rename or remove one of them")
    if {"input", "output"} <= set(known) or "messages" in known:
        return
    missing = " and ".join(f"`{name}`" for name in ("input", "output") if name not in known)
    found = ", ".join(f"`{shortened(name, 40)}`" for name in columns[:20]) or "none"
    raise PerpetuneError(
        f"there is no column {missing}; the columns are: {found}", where=str(path), do=_advice(columns, path)
    )


def _advice(columns: tuple[str, ...], path: Path) -> str:
    if len(columns) == 1 and path.suffix.lower() == ".csv" and any(mark in columns[0] for mark in ";\t|"):
        return "separate the columns by commas"
    renames = [
        f"`{found}` to `{wanted}`"
        for wanted, names in (("input", _INPUT_NAMES), ("output", _OUTPUT_NAMES))
        if wanted not in columns
        for found in [_likeliest(columns, names.split())]
    ]
    return f"rename {' and '.join(renames)}"


def _likeliest(columns: tuple[str, ...], names: list[str]) -> str:
    """The column that most likely has the missing values, by common names."""
    by_name = {column.lower(): column for column in columns}
    return next((by_name[name] for name in names if name in by_name), "the column that holds it")
