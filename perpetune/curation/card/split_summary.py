"""The table of splits: rows, groups, labels, lengths and dates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from perpetune.records import Example


@dataclass(frozen=True)
class Lengths:
    """Lengths in characters."""

    median: int
    p95: int
    max: int


@dataclass(frozen=True)
class SplitSummary:
    """A split; `first` and `last` are the dates of its oldest and newest rows, None if no row has a time."""

    name: str
    rows: int
    groups: int
    labels: dict[str, int]
    input: Lengths
    output: Lengths
    first: str | None
    last: str | None


def split_summary(name: str, rows: Collection[Example], labelled: bool) -> SplitSummary:
    times = sorted(row.time for row in rows if row.time)
    return SplitSummary(
        name=name,
        rows=len(rows),
        groups=len({row.group for row in rows}),
        labels=dict(Counter(row.output for row in rows).most_common()) if labelled else {},
        input=_lengths([sum(len(m.content) for m in row.messages) or len(row.input) for row in rows]),
        output=_lengths([len(row.output) for row in rows]),
        first=times[0].date().isoformat() if times else None,
        last=times[-1].date().isoformat() if times else None,
    )


def _lengths(lengths: Sequence[int]) -> Lengths:
    if not lengths:
        return Lengths(0, 0, 0)
    return Lengths(*(int(value) for value in np.percentile(lengths, [50, 95, 100], method="nearest")))
