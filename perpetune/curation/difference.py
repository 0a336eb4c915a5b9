"""How one version of the data differs from another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from perpetune.records import Example

Splits = Mapping[str, Sequence[Example]]


@dataclass(frozen=True)
class Count:
    """Rows of a kind before and after."""

    before: int
    after: int


@dataclass(frozen=True)
class Difference:
    """Rows that came, went, were rewritten (same id, another text) or stand in another split than before.

    The counts are by split, by source and by label; there are none by label where outputs are free text.
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
    old, new = _placed(before), _placed(after)
    both = old.keys() & new.keys()
    return Difference(
        added=len(new.keys() - old.keys()),
        removed=len(old.keys() - new.keys()),
        changed=sum(_said(old[key][1]) != _said(new[key][1]) for key in both),
        moved=sum(old[key][0] != new[key][0] for key in both),
        splits=_counts((name for name, _ in old.values()), (name for name, _ in new.values())),
        sources=_counts((row.source for _, row in old.values()), (row.source for _, row in new.values())),
        labels=_counts((row.output for _, row in old.values()), (row.output for _, row in new.values()))
        if labelled
        else {},
    )


def _placed(splits: Splits) -> dict[tuple[str, str], tuple[str, Example]]:
    """Each row and the split that it stands in, by what names it."""
    return {(row.source, row.id): (name, row) for name, rows in splits.items() for row in rows}


def _said(row: Example) -> tuple[object, ...]:
    return row.input, row.output, row.messages


def _counts(before: Iterable[str], after: Iterable[str]) -> dict[str, Count]:
    """The commonest afterwards first."""
    old, new = Counter(before), Counter(after)
    names = sorted(old.keys() | new.keys(), key=lambda name: (-new[name], -old[name], name))
    return {name: Count(old[name], new[name]) for name in names}
