"""Long texts with nearly the same five-word passages, found exactly.

Prefix filtering (Chaudhuri et al. 2006, ICDE) finds all pairs: they share one of their rarest shingles, and only texts
that do are compared.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence

from perpetune.curation.dedup_key import input_key
from perpetune.records import Example

# The threshold of near duplicates in Lee et al. (2022, arXiv:2107.06499), and the words per shingle.
JACCARD = 0.8
SHINGLE = 5
# Short texts such as "Great product, works well" occur independently: rows with fewer words count only if they are equal.
MIN_WORDS = 10

Shingle = tuple[str, ...]


def with_shared_passages(rows: Sequence[Example], others: Sequence[Example]) -> list[int]:
    """Positions of the rows whose input has a Jaccard similarity of at least 0.8 with that of one of the others."""
    known = [shingles(row) for row in others if is_long(row)]
    if not known:
        return []
    counts = Counter(shingle for each in known for shingle in each)
    index: dict[Shingle, list[frozenset[Shingle]]] = defaultdict(list)
    for each in known:
        for shingle in _rarest(each, counts):
            index[shingle].append(each)
    long = ((position, shingles(row)) for position, row in enumerate(rows) if is_long(row))
    return [
        position
        for position, found in long
        if any(
            jaccard(found, other) >= JACCARD for shingle in _rarest(found, counts) for other in index.get(shingle, ())
        )
    ]


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


def is_long(row: Example) -> bool:
    return len(words(row)) >= MIN_WORDS


def _rarest(shingle_set: frozenset[Shingle], counts: Counter[Shingle]) -> list[Shingle]:
    """The rarest shingles, enough that a set without any of them cannot reach the threshold."""
    needed = math.ceil(JACCARD * len(shingle_set) - 1e-9)  # rounding must not add one
    return sorted(shingle_set, key=lambda shingle: (counts[shingle], shingle))[: len(shingle_set) - needed + 1]
