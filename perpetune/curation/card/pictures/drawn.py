"""All pictures of a card, by the name that its page has for them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Protocol

from markupsafe import Markup

from perpetune.curation.card.pictures.balance import balance
from perpetune.curation.card.pictures.funnel import funnel
from perpetune.curation.card.pictures.histogram import histogram
from perpetune.curation.card.pictures.input_map import input_map, points
from perpetune.curation.card.pictures.languages import languages
from perpetune.curation.card.pictures.near_groups import near_groups
from perpetune.records import Example


class LanguageCounts(Protocol):
    """What the picture of languages needs of each."""

    @property
    def code(self) -> str: ...
    @property
    def rows(self) -> int: ...
    @property
    def kept(self) -> int: ...


class StepCounts(Protocol):
    """What the funnel needs of a step."""

    @property
    def name(self) -> str: ...
    @property
    def rows(self) -> int: ...
    @property
    def kept(self) -> int: ...


def pictures(
    steps: Sequence[StepCounts],
    labels: Sequence[str],
    splits: Mapping[str, Collection[Example]],
    sizes: Mapping[int, int],
    found_languages: Sequence[LanguageCounts] = (),
) -> dict[str, Markup]:
    """The pictures that there is something to draw for. `labels` are empty if outputs are free text."""
    by_label = {name: _counts(rows) for name, rows in splits.items()}
    kinds = list(labels) or [name for name, rows in splits.items() if rows]
    placed = ((row.output if labels else name, row) for name, rows in splits.items() for row in rows)
    found = points(placed)
    drawn = {
        "funnel": funnel([(each.name, each.rows, each.kept) for each in steps]),
        "balance": balance(labels, by_label) if labels else Markup(""),
        "inputs": histogram({name: [_length(row) for row in rows] for name, rows in splits.items()}, "inputs"),
        "outputs": histogram({name: [len(row.output) for row in rows] for name, rows in splits.items()}, "outputs"),
        "map": input_map(found, kinds, labelled=bool(labels)) if found else Markup(""),
        "languages": languages([(each.code, each.rows, each.kept) for each in found_languages])
        if found_languages
        else Markup(""),
        "near": near_groups(sizes) if sizes else Markup(""),
    }
    if labels:
        del drawn["outputs"]  # of labels, which the balance shows
    return {name: each for name, each in drawn.items() if each}


def _length(row: Example) -> int:
    return sum(len(message.content) for message in row.messages) or len(row.input)


def _counts(rows: Iterable[Example]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for row in rows:
        counts[row.output] = counts.get(row.output, 0) + 1
    return counts
