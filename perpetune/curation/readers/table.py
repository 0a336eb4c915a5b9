"""The rows of a file before validation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """The values of one row; `line` counts from 1, `raw` is None if the file is not text."""

    line: int
    raw: str | None
    values: Mapping[str, object]


@dataclass(frozen=True)
class UnreadableRow:
    """A line that cannot be parsed."""

    line: int
    raw: str
    reason: str


@dataclass(frozen=True)
class Table:
    """All rows of a file, in order, and its column names (in JSONL: all keys)."""

    columns: tuple[str, ...]
    rows: tuple[Row | UnreadableRow, ...]
