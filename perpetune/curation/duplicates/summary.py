"""The near duplicates of a data set in numbers and examples, for the data card."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from perpetune.curation.duplicates.near import NearDuplicates, stars
from perpetune.curation.text import shortened
from perpetune.records import Example

SHOWN_GROUPS = 3
SHOWN_PAIRS = 5


class NearSummary(BaseModel):
    """Groups of near duplicates, and pairs of them with different labels, of which one may be wrong.

    `sizes` maps the rows of a group to the number of such groups.
    """

    model_config = ConfigDict(frozen=True)

    rows: int
    groups: int
    grouped_rows: int
    largest: int
    examples: tuple[tuple[str, ...], ...]
    disagreements: int
    disagreeing: tuple[tuple[str, str, str, str], ...]
    sizes: dict[int, int] = {}

    @property
    def sentence(self) -> str:
        return (
            f"{self.grouped_rows:,} of {self.rows:,} rows are in {self.groups:,} groups of near duplicates, which are "
            f"split as one; the largest has {self.largest:,} rows."
        )


def near_summary(rows: Sequence[Example], near: NearDuplicates, *, labelled: bool) -> NearSummary | None:
    """Summarise the near duplicates of these rows; None if they were not compared."""
    if not near.numbers:
        return None
    by_text: dict[int, list[Example]] = defaultdict(list)
    for row in rows:
        by_text[near.text_of(row)].append(row)
    by_centre: dict[int, list[Example]] = defaultdict(list)
    for text, centre in stars(by_text, near).items():
        by_centre[centre] += by_text[text]
    groups = sorted((group for group in by_centre.values() if len(group) > 1), key=len, reverse=True)
    pairs = _disagreeing(by_text, near) if labelled else []
    return NearSummary(
        rows=len(rows),
        groups=len(groups),
        grouped_rows=sum(map(len, groups)),
        largest=len(groups[0]) if groups else 0,
        examples=tuple(tuple(shortened(row.input, 100) for row in group[:3]) for group in groups[:SHOWN_GROUPS]),
        disagreements=len(pairs),
        disagreeing=tuple(
            (
                shortened(one.input, 100),
                shortened(one.output, 40),
                shortened(other.input, 100),
                shortened(other.output, 40),
            )
            for one, other in pairs[:SHOWN_PAIRS]
        ),
        sizes=dict(sorted(Counter(map(len, groups)).items())),
    )


def _disagreeing(by_text: dict[int, list[Example]], near: NearDuplicates) -> list[tuple[Example, Example]]:
    """One pair of rows for each two near duplicates whose labels have nothing in common."""
    labels = {text: {row.output for row in rows} for text, rows in by_text.items()}
    return [
        (by_text[one][0], by_text[other][0])
        for one in sorted(by_text)
        for other in sorted(near.like(one))
        if one < other and other in labels and not labels[one] & labels[other]
    ]
