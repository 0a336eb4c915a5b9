"""The table of sources."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from perpetune.records import Example


@dataclass(frozen=True)
class Source:
    """The number of rows of a source, and how many of them are in a split."""

    name: str
    rows: int
    used: int


def sources_of(fetched: Sequence[Example], splits: Mapping[str, Sequence[Example]]) -> tuple[Source, ...]:
    fetched_rows = Counter(row.source for row in fetched)
    used = Counter(row.source for rows in splits.values() for row in rows)
    return tuple(Source(name, rows, used[name]) for name, rows in fetched_rows.most_common())
