"""Which held-out rows were in truth trained on."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from perpetune.curation.dedup_key import input_key
from perpetune.records import Example

# The sameness at which Lee et al. (2022, arXiv:2107.06499) call two texts near duplicates, and the words of a shingle.
JACCARD = 0.8
SHINGLE = 5
# "Great product, works well" is said by many who never met: a row with fewer words counts only where it is the same.
MIN_WORDS = 10

Shingle = tuple[str, ...]


@dataclass(frozen=True)
class Leakage:
    """Ids of held-out rows: whose question is in the training rows, and, of the `long` others, nearly is."""

    same: tuple[str, ...]
    near: tuple[str, ...]
    long: int
    rows: int


def leakage(trained: Sequence[Example], held_out: Sequence[Example]) -> Leakage:
    """Compare each held-out row with all training rows, whatever the outputs.

    Two rows are near duplicates where the sets of their runs of five words overlap by 0.8 (Jaccard), case and
    punctuation aside. All pairs are found: two sets that overlap so much share one of their rarest shingles (prefix
    filtering: Chaudhuri et al. 2006, ICDE), and only rows that do are compared.
    """
    questions = {input_key(row) for row in trained}
    same = {row.id for row in held_out if input_key(row) in questions}
    others = {row.id: shingles(row) for row in held_out if row.id not in same and _is_long(row)}
    known = [shingles(row) for row in trained if _is_long(row)]
    counts = Counter(shingle for each in known for shingle in each)
    index: dict[Shingle, list[frozenset[Shingle]]] = defaultdict(list)
    for each in known:
        for shingle in _rarest(each, counts):
            index[shingle].append(each)
    near = [
        id_
        for id_, own in others.items()
        if any(jaccard(own, other) >= JACCARD for shingle in _rarest(own, counts) for other in index.get(shingle, ()))
    ]
    return Leakage(tuple(sorted(same)), tuple(sorted(near)), len(others), len(held_out))


def words(row: Example) -> list[str]:
    """The words of the bare question."""
    return re.findall(r"\w+", " ".join(text for _, text in input_key(row)))


def shingles(row: Example) -> frozenset[Shingle]:
    """All runs of five words."""
    said = words(row)
    return frozenset(tuple(said[position : position + SHINGLE]) for position in range(len(said) - SHINGLE + 1))


def jaccard(one: frozenset[Shingle], other: frozenset[Shingle]) -> float:
    """The share of both that is in each; 0 for empty sets."""
    together = len(one | other)
    return len(one & other) / together if together else 0.0


def _is_long(row: Example) -> bool:
    return len(words(row)) >= MIN_WORDS


def _rarest(own: frozenset[Shingle], counts: Counter[Shingle]) -> list[Shingle]:
    """So many of the rarest shingles that a set without any of them shares too little of the rest."""
    needed = math.ceil(JACCARD * len(own) - 1e-9)  # rounding must not ask for one more
    return sorted(own, key=lambda shingle: (counts[shingle], shingle))[: len(own) - needed + 1]
