"""Leakage: held-out rows that were trained on, exactly or as near duplicates."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from perpetune.curation.dedup_key import input_key
from perpetune.records import Example

# The threshold of near duplicates in Lee et al. (2022, arXiv:2107.06499), and the words per shingle.
JACCARD = 0.8
SHINGLE = 5
# Short texts such as "Great product, works well" occur independently: rows with fewer words count only if they are equal.
MIN_WORDS = 10

Shingle = tuple[str, ...]


@dataclass(frozen=True)
class Leakage:
    """Ids of held-out rows whose input is in the training rows (`same`) or nearly so (`near`, of the `long` others)."""

    same: tuple[str, ...]
    near: tuple[str, ...]
    long: int
    rows: int


def leakage(trained: Sequence[Example], held_out: Sequence[Example]) -> Leakage:
    """Compare the input of each held-out row with all training rows.

    Two rows are near duplicates if the Jaccard similarity of their five-word shingles is at least 0.8, ignoring case
    and punctuation. Prefix filtering (Chaudhuri et al. 2006, ICDE) finds all such pairs: they share one of their rarest
    shingles, and only rows that do are compared.
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
        for id_, shingle_set in others.items()
        if any(
            jaccard(shingle_set, other) >= JACCARD
            for shingle in _rarest(shingle_set, counts)
            for other in index.get(shingle, ())
        )
    ]
    return Leakage(tuple(sorted(same)), tuple(sorted(near)), len(others), len(held_out))


def words(row: Example) -> list[str]:
    """The words of the input, without system messages."""
    return re.findall(r"\w+", " ".join(text for _, text in input_key(row)))


def shingles(row: Example) -> frozenset[Shingle]:
    """All five-word shingles."""
    words_of_row = words(row)
    return frozenset(
        tuple(words_of_row[position : position + SHINGLE]) for position in range(len(words_of_row) - SHINGLE + 1)
    )


def jaccard(one: frozenset[Shingle], other: frozenset[Shingle]) -> float:
    """The Jaccard similarity; 0 for empty sets."""
    union = len(one | other)
    return len(one & other) / union if union else 0.0


def _is_long(row: Example) -> bool:
    return len(words(row)) >= MIN_WORDS


def _rarest(shingle_set: frozenset[Shingle], counts: Counter[Shingle]) -> list[Shingle]:
    """The rarest shingles, enough that a set without any of them cannot reach the threshold."""
    needed = math.ceil(JACCARD * len(shingle_set) - 1e-9)  # rounding must not add one
    return sorted(shingle_set, key=lambda shingle: (counts[shingle], shingle))[: len(shingle_set) - needed + 1]
