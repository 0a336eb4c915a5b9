"""Texts that differ by one word: changed, added, left out, or moved.

The deletion neighbourhood of Mor and Fraenkel (1982, CACM 25:935) with words as symbols: two such texts are equal once
a word is left out of each, so they share a hash and no pair needs to be compared.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from perpetune.curation.duplicates.word_hashes import INVERSE, Hashes, WordNumbers, powers

MIN_WORDS = 4
"""Shorter texts with another word are other texts: "cancel my card", "freeze my card"."""
MAX_WORDS = 200
"""Longer texts are left to MinHash, to which one word makes no difference."""
MAX_FILLERS = 10
"""A place that more words fill is a slot of a template ("ticket 1", "ticket 2", ...), and they are what the texts say."""

_BATCH = 10_000  # texts of one length that are hashed at once


def one_word_apart(texts: Iterable[tuple[str, ...]]) -> Iterator[tuple[int, int]]:
    """Positions of the pairs of texts, given as words, that are one word apart; a pair may come twice."""
    hashes, owners = _neighbourhoods(texts)
    order = np.argsort(hashes, kind="stable")
    hashes, owners = hashes[order], owners[order]
    starts = np.flatnonzero(np.concatenate([[True], hashes[1:] != hashes[:-1]])) if len(hashes) else order
    ends = np.append(starts[1:], len(hashes))
    shared = ends - starts > 1
    for start, end in zip(starts[shared].tolist(), ends[shared].tolist(), strict=True):
        members = sorted(set(owners[start:end].tolist()))
        if len(members) <= MAX_FILLERS:
            yield from ((one, other) for place, one in enumerate(members) for other in members[place + 1 :])


def _neighbourhoods(texts: Iterable[tuple[str, ...]]) -> tuple[Hashes, NDArray[np.int32]]:
    """The hash of each text, and of each text without one of its words; and whose it is."""
    numbers = WordNumbers()
    waiting: dict[int, list[tuple[int, Hashes]]] = defaultdict(list)
    found: list[tuple[Hashes, NDArray[np.int32]]] = []
    for position, words in enumerate(texts):
        if MIN_WORDS <= len(words) <= MAX_WORDS:
            waiting[len(words)].append((position, numbers.of(words)))
            if len(waiting[len(words)]) == _BATCH:
                found.append(_hashed(waiting.pop(len(words))))
    found += [_hashed(same_length) for same_length in waiting.values()]
    if not found:
        return np.empty(0, np.uint64), np.empty(0, np.int32)
    return np.concatenate([hashes for hashes, _ in found]), np.concatenate([owners for _, owners in found])


def _hashed(texts: list[tuple[int, Hashes]]) -> tuple[Hashes, NDArray[np.int32]]:
    """For texts of one length, polynomial hashes: of all words, then without each word in turn."""
    terms = np.stack([words for _, words in texts]) * _POWERS[: len(texts[0][1])]
    before = np.cumsum(terms, axis=1, dtype=np.uint64)
    whole = before[:, -1:]
    without = (before - terms) + (whole - before) * np.uint64(INVERSE)
    owners = np.array([position for position, _ in texts], dtype=np.int32)
    return np.hstack([whole, without]).ravel(), np.repeat(owners, terms.shape[1] + 1)


_POWERS = powers(MAX_WORDS)
