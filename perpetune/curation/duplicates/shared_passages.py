"""Long texts with nearly the same five-word passages, found exactly.

Prefix filtering (Chaudhuri et al. 2006, ICDE) finds all pairs: they share one of their rarest shingles, and only texts
that do are compared.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perpetune.curation.duplicates.word_hashes import Hashes, WordNumbers, powers
from perpetune.curation.rows.dedup_key import input_key
from perpetune.records import Example

# The threshold of near duplicates in Lee et al. (2022, arXiv:2107.06499), and the words per shingle.
JACCARD = 0.8
SHINGLE = 5
# Short texts such as "Great product, works well" occur independently: rows with fewer words count only if they are equal.
MIN_WORDS = 10

Shingle = tuple[str, ...]
_POWERS = powers(SHINGLE)


def with_shared_passages(rows: Sequence[Example], others: Sequence[Example]) -> list[int]:
    """Positions of the rows whose input has a Jaccard similarity of at least 0.8 with that of one of the others."""
    numbers = WordNumbers()
    return PassageIndex(passages_of(others, numbers)).like(passages_of(rows, numbers))


@dataclass(frozen=True)
class Passages:
    """The hashes of each text's five-word shingles, sorted: those of text n from `starts[n]` to `starts[n + 1]`.

    Short texts have none.
    """

    hashes: Hashes
    starts: NDArray[np.int64]

    def of(self, text: int) -> Hashes:
        return self.hashes[self.starts[text] : self.starts[text + 1]]

    @property
    def sizes(self) -> NDArray[np.int64]:
        return np.diff(self.starts)


def passages_of(rows: Iterable[Example], numbers: WordNumbers) -> Passages:
    """The passages of these rows' inputs. Texts are compared only if their words have the same `numbers`."""
    found = [_hashes(words(row), numbers) for row in rows]
    starts = np.zeros(len(found) + 1, dtype=np.int64)
    np.cumsum([len(each) for each in found], out=starts[1:])
    return Passages(np.concatenate([np.empty(0, np.uint64), *found]), starts)


class PassageIndex:
    """Texts that are found by any of their rarest shingles."""

    def __init__(self, texts: Passages) -> None:
        self._texts = texts
        self._known, self._counts = np.unique(texts.hashes, return_counts=True)
        hashes, owners = self._rarest(texts)
        order = np.argsort(hashes, kind="stable")
        self._hashes, self._owners = hashes[order], owners[order]

    def like(self, texts: Passages) -> list[int]:
        """The numbers of those of these texts that have a Jaccard similarity of at least 0.8 with one of the index."""
        hashes, owners = self._rarest(texts)
        first, last = (np.searchsorted(self._hashes, hashes, side) for side in ("left", "right"))
        found: set[int] = set()
        for shared in np.flatnonzero(first < last).tolist():
            text = int(owners[shared])
            others = self._owners[first[shared] : last[shared]]
            if text not in found and any(_alike(texts.of(text), self._texts.of(other)) for other in others):
                found.add(text)
        return sorted(found)

    def _rarest(self, texts: Passages) -> tuple[Hashes, NDArray[np.int64]]:
        """Of each text so many of its rarest shingles that no text without any of them can reach the threshold."""
        sizes = texts.sizes
        owners = np.repeat(np.arange(len(sizes)), sizes)
        order = np.lexsort((texts.hashes, self._frequency(texts.hashes), owners))
        needed = sizes - np.ceil(JACCARD * sizes - 1e-9).astype(np.int64) + 1  # rounding must not add one
        rank = np.arange(len(owners)) - np.repeat(texts.starts[:-1], sizes)
        chosen = order[rank < np.repeat(needed, sizes)]
        return texts.hashes[chosen], owners[chosen]

    def _frequency(self, hashes: Hashes) -> NDArray[np.int64]:
        """In how many texts of the index each shingle is."""
        if not len(self._known):
            return np.zeros(len(hashes), dtype=np.int64)
        place = np.minimum(np.searchsorted(self._known, hashes), len(self._known) - 1)
        return np.where(self._known[place] == hashes, self._counts[place], 0)


def _hashes(words_of_row: list[str], numbers: WordNumbers) -> Hashes:
    if len(words_of_row) < MIN_WORDS:
        return np.empty(0, np.uint64)
    codes = numbers.of(words_of_row)
    return np.unique(np.lib.stride_tricks.sliding_window_view(codes, SHINGLE) @ _POWERS)


def _alike(one: Hashes, other: Hashes) -> bool:
    if min(len(one), len(other)) < JACCARD * max(len(one), len(other)):
        return False
    shared = len(np.intersect1d(one, other, assume_unique=True))
    return shared / (len(one) + len(other) - shared) >= JACCARD


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
