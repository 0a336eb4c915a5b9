"""The rows of a file before validation."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Row:
    """The values of one row; `line` counts from 1, `raw` is None if the file is not text."""

    line: int
    raw: str | None
    values: Mapping[str, object]


@dataclass(frozen=True)
class UnreadableRow:
    """A record that cannot be parsed; `line` is its first."""

    line: int
    raw: str
    reason: str


@dataclass(frozen=True)
class Table:
    """The rows of a file, in order, read as they are iterated over, once.

    `columns` are those of the header or schema, in order; JSON has none, its rows have keys. `notes` say how the file
    was read if that was not obvious (encoding, separator, sheet).
    """

    columns: tuple[str, ...]
    rows: Iterable[Row | UnreadableRow]
    notes: tuple[str, ...] = field(default=())


@dataclass(frozen=True)
class WantedColumns:
    """Which columns will be read: damage in others costs nothing.

    `known` are names that tell a header from text; `of` gives, for the columns of a file or record, those to read.
    """

    known: frozenset[str]
    of: Callable[[tuple[str, ...]], Container[str]]


EVERY_COLUMN = WantedColumns(frozenset(), lambda columns: columns)
