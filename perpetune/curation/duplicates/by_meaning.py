"""Near duplicates by meaning: pairs of rows that the stage `semantic` found, added to those that are alike by letters."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from perpetune.curation.duplicates.near import NearDuplicates
from perpetune.curation.running.layout import SEMANTIC
from perpetune.records import Example, read_jsonl

PAIRS = SEMANTIC / "pairs.jsonl"


class Pair(BaseModel):
    """Two rows, each by its source and id."""

    model_config = ConfigDict(frozen=True)

    one: tuple[str, str]
    other: tuple[str, str]


def load_pairs(workspace: Path) -> list[Pair]:
    """The pairs that were found; none if the workspace has no such stage."""
    return read_jsonl(workspace / PAIRS, Pair) if (workspace / PAIRS).is_file() else []


def with_pairs(near: NearDuplicates, rows: Sequence[Example], pairs: Iterable[Pair]) -> NearDuplicates:
    """The near duplicates of these rows, and these pairs."""
    if not near.numbers:
        return near
    texts = {(row.source, row.id): near.text_of(row) for row in rows}
    neighbours = defaultdict(set, {text: set(others) for text, others in near.neighbours.items()})
    for pair in pairs:
        one, other = texts.get(pair.one), texts.get(pair.other)
        if one is not None and other is not None and one != other:
            neighbours[one].add(other)
            neighbours[other].add(one)
    return NearDuplicates(near.numbers, {text: frozenset(others) for text, others in neighbours.items()})
