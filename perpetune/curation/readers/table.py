"""What a file of rows holds before anyone asks whether the rows are examples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """The values of one row, at a line counted from 1; `raw` is None where the file is not text."""

    line: int
    raw: str | None
    values: Mapping[str, object]


@dataclass(frozen=True)
class UnreadableRow:
    """A line that could not be read as a row."""

    line: int
    raw: str
    reason: str


@dataclass(frozen=True)
class Table:
    """All rows of a file, in order, and the names of its columns (in JSONL: the keys that occur)."""

    columns: tuple[str, ...]
    rows: tuple[Row | UnreadableRow, ...]
