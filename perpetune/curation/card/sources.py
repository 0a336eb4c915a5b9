"""The table of sources."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from perpetune.records import Example


@dataclass(frozen=True)
class Source:
    """The number of rows of a source, and how many of them are in a split."""

    name: str
    rows: int
    used: int


def sources_of(fetched: Mapping[str, int], splits: Mapping[str, Iterable[Example]]) -> tuple[Source, ...]:
    used = Counter(row.source for rows in splits.values() for row in rows)
    return tuple(Source(name, rows, used[name]) for name, rows in Counter(fetched).most_common())
