"""Texts that differ by one word: changed, added, left out, or moved.

The deletion neighbourhood of Mor and Fraenkel (1982, CACM 25:935) with words as symbols: two such texts are equal once
a word is left out of each, so they share a hash and no pair needs to be compared.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from perpetune.curation.duplicates.shared_keys import Owned, sharing
from perpetune.curation.duplicates.word_hashes import INVERSE, Hashes, WordNumbers, powers

MIN_WORDS = 2
"""Words that two texts must have in common."""
MAX_WORDS = 200
"""Longer texts are compared passage by passage."""
PASSAGE = 32
"""Words of a passage on average. It ends with a word of a certain hash, so that another word changes no other passage."""
MAX_FILLERS = 10
"""A place that more words fill is a slot of a template ("ticket 1", "ticket 2", ...), and they are what the texts say."""

_BATCH = 10_000  # texts of one length that are hashed at once
_PARTS, _PART_SHIFT = 16, np.uint64(60)  # by the first four bits of a hash
_POWERS = powers(MAX_WORDS)


def one_word_apart(texts: Iterable[Sequence[str]]) -> Iterator[tuple[int, int]]:
    """Positions of the pairs of texts, given as words, that are one word apart; a pair may come twice."""
    found = Neighbourhoods()
    count = 0
    for count, words in enumerate(texts, start=1):
        found.add(words, count - 1)
    return found.pairs(np.arange(count, dtype=np.int32))


class Neighbourhoods:
    """The hash of each text, and of each text without one of its words; and whose it is."""

    def __init__(self) -> None:
        self._numbers = WordNumbers()
        self._waiting: dict[int, list[tuple[int, Hashes]]] = defaultdict(list)
        self._found: list[Owned] = []

    def add(self, words: Sequence[str], owner: int) -> None:
        """Add a text, given as words. Several may have one owner."""
        codes = self._numbers.of(words) if len(words) <= MAX_WORDS else _passages(words, self._numbers)
        if MIN_WORDS <= len(codes) <= MAX_WORDS:
            waiting = self._waiting[len(codes)]
            waiting.append((owner, codes))
            if len(waiting) == _BATCH:
                self._found.append(_hashed(self._waiting.pop(len(codes))))

    def pairs(self, names: NDArray[np.int32]) -> Iterator[tuple[int, int]]:
        """Pairs of owners of texts that are one word apart, by their `names`. Owners with one name count as one."""
        self._found += [_hashed(same_length) for same_length in self._waiting.values()]
        self._waiting.clear()
        for part in range(_PARTS):
            hashes, owners = _part(self._found, part)
            yield from sharing(hashes, names[owners], MAX_FILLERS)


def _part(found: Sequence[Owned], part: int) -> Owned:
    """The hashes that begin with these bits: to sort all at once would take twice their memory."""
    chosen = [hashes >> _PART_SHIFT == part for hashes, _ in found]
    hashes = [hashes[inside] for (hashes, _), inside in zip(found, chosen, strict=True)]
    owners = [owners[inside] for (_, owners), inside in zip(found, chosen, strict=True)]
    return np.concatenate([np.empty(0, np.uint64), *hashes]), np.concatenate([np.empty(0, np.int32), *owners])


def _hashed(texts: list[tuple[int, Hashes]]) -> Owned:
    """For texts of one length, polynomial hashes: of all words, then without each word in turn."""
    terms = np.stack([words for _, words in texts]) * _POWERS[: len(texts[0][1])]
    before = np.cumsum(terms, axis=1, dtype=np.uint64)
    whole = before[:, -1:]
    without = (before - terms) + (whole - before) * np.uint64(INVERSE)
    owners = np.array([position for position, _ in texts], dtype=np.int32)
    hashes = np.hstack([whole, without]) if terms.shape[1] > MIN_WORDS else whole
    return hashes.ravel(), np.repeat(owners, hashes.shape[1])


def _passages(words: Sequence[str], numbers: WordNumbers) -> Hashes:
    """A hash for each passage of a long text. No passage ends with a number, so another number changes one passage."""
    codes = numbers.of(words)
    has_no_digit = np.array([not any(map(str.isdigit, word)) for word in words])
    starts = np.flatnonzero((codes[:-1] % np.uint64(PASSAGE) == 0) & has_no_digit[:-1]) + 1
    starts = np.concatenate([[0], starts])
    place = np.arange(len(codes)) - np.repeat(starts, np.diff(np.append(starts, len(codes))))
    return np.add.reduceat(codes * _POWERS[place % MAX_WORDS], starts)
