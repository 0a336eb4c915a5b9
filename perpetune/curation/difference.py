"""The difference between two versions of the data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from perpetune.records import Example

Splits = Mapping[str, Sequence[Example]]


@dataclass(frozen=True)
class Count:
    """A number of rows before and after."""

    before: int
    after: int


@dataclass(frozen=True)
class Difference:
    """Rows added, removed, changed (same id, different text) and moved to another split.

    Counts are by split, source and label; `labels` is empty if outputs are free text.
    """

    added: int
    removed: int
    changed: int
    moved: int
    splits: Mapping[str, Count]
    sources: Mapping[str, Count]
    labels: Mapping[str, Count]


def difference(before: Splits, after: Splits, *, labelled: bool) -> Difference:
    """Compare two versions of the splits, row by row."""
    old, new = rows_by_id(before), rows_by_id(after)
    both = old.keys() & new.keys()
    return Difference(
        added=len(new.keys() - old.keys()),
        removed=len(old.keys() - new.keys()),
        changed=sum(_content(old[key][1]) != _content(new[key][1]) for key in both),
        moved=sum(old[key][0] != new[key][0] for key in both),
        splits=_counts((name for name, _ in old.values()), (name for name, _ in new.values())),
        sources=_counts((row.source for _, row in old.values()), (row.source for _, row in new.values())),
        labels=_counts((row.output for _, row in old.values()), (row.output for _, row in new.values()))
        if labelled
        else {},
    )


def rows_by_id(splits: Splits) -> dict[tuple[str, str], tuple[str, Example]]:
    """Each row with its split, by source and id."""
    return {(row.source, row.id): (name, row) for name, rows in splits.items() for row in rows}


def _content(row: Example) -> tuple[object, ...]:
    return row.input, row.output, row.messages


def _counts(before: Iterable[str], after: Iterable[str]) -> dict[str, Count]:
    """Sorted by the count afterwards, largest first."""
    old, new = Counter(before), Counter(after)
    names = sorted(old.keys() | new.keys(), key=lambda name: (-new[name], -old[name], name))
    return {name: Count(old[name], new[name]) for name in names}
