"""Texts that differ by one word: changed, added, left out, or moved.

The deletion neighbourhood of Mor and Fraenkel (1982, CACM 25:935) with words as symbols: two such texts are equal once
a word is left out of each, so they share a hash and no pair needs to be compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

MIN_WORDS = 4
"""Shorter texts with another word are other texts: "cancel my card", "freeze my card"."""
MAX_WORDS = 200
"""Longer texts are left to MinHash, to which one word makes no difference."""
MAX_FILLERS = 10
"""A place that more words fill is a slot of a template ("ticket 1", "ticket 2", ...), and they are what the texts say."""

_BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2^64
_INVERSE = pow(_BASE, -1, 2**64)


def one_word_apart(texts: Sequence[tuple[str, ...]]) -> Iterator[tuple[int, int]]:
    """Positions of the pairs of texts, given as words, that are one word apart; a pair may come twice."""
    hashes, owners = _neighbourhoods(texts)
    order = np.argsort(hashes, kind="stable")
    hashes, owners = hashes[order], owners[order]
    starts = np.flatnonzero(np.concatenate([[True], hashes[1:] != hashes[:-1]])) if len(hashes) else hashes[:0]
    ends = np.append(starts[1:], len(hashes))
    for start, end in zip(starts[ends - starts > 1], ends[ends - starts > 1], strict=True):
        members = np.unique(owners[start:end]).tolist()
        if len(members) <= MAX_FILLERS:
            yield from ((one, other) for place, one in enumerate(members) for other in members[place + 1 :])


def _neighbourhoods(texts: Sequence[tuple[str, ...]]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """The hash of each text, and of each text without one of its words; and whose it is."""
    codes = _Codes()
    found = [
        (_hashes(np.array([codes[word] for word in words], dtype=np.uint64)), position)
        for position, words in enumerate(texts)
        if MIN_WORDS <= len(words) <= MAX_WORDS
    ]
    if not found:
        return np.empty(0, np.uint64), np.empty(0, np.int64)
    hashes = [each for each, _ in found]
    owners = np.repeat([position for _, position in found], [len(each) for each in hashes])
    return np.concatenate(hashes), owners


def _hashes(codes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Polynomial hashes modulo 2^64: of all words first, then without each word in turn."""
    terms = codes * _powers(len(codes))
    before = np.cumsum(terms, dtype=np.uint64)
    whole = before[-1:]
    without = (before - terms) + (whole - before) * np.uint64(_INVERSE)
    return np.concatenate([whole, np.unique(without)])


_POWERS = np.array([pow(_BASE, exponent, 2**64) for exponent in range(MAX_WORDS)], dtype=np.uint64)


def _powers(count: int) -> NDArray[np.uint64]:
    return _POWERS[:count]


class _Codes(dict[str, int]):
    """A random number for each word, by splitmix64 (Steele et al. 2014, OOPSLA) of its rank."""

    def __missing__(self, word: str) -> int:
        mixed = (len(self) + 1) * 0x9E3779B97F4A7C15 % 2**64
        mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB % 2**64
        self[word] = mixed ^ mixed >> 31
        return self[word]
