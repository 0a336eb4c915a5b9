"""Texts that differ by one word: changed, added, left out, or moved.

The deletion neighbourhood of Mor and Fraenkel (1982, CACM 25:935) with words as symbols: two such texts are equal once
a word is left out of each, so they share a hash and no pair needs to be compared.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

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
_PARTS, _PART_SHIFT = 16, np.uint64(60)  # by the first four bits of a hash
_Owned = tuple[Hashes, NDArray[np.int32]]


def one_word_apart(texts: Iterable[tuple[str, ...]]) -> Iterator[tuple[int, int]]:
    """Positions of the pairs of texts, given as words, that are one word apart; a pair may come twice."""
    found = _neighbourhoods(texts)
    for part in range(_PARTS):
        yield from _sharing_a_hash(*_part(found, part))


def _part(found: Sequence[_Owned], part: int) -> _Owned:
    """The hashes that begin with these bits: to sort all at once would take twice their memory."""
    chosen = [hashes >> _PART_SHIFT == part for hashes, _ in found]
    hashes = [hashes[inside] for (hashes, _), inside in zip(found, chosen, strict=True)]
    owners = [owners[inside] for (_, owners), inside in zip(found, chosen, strict=True)]
    return np.concatenate([np.empty(0, np.uint64), *hashes]), np.concatenate([np.empty(0, np.int32), *owners])


def _sharing_a_hash(hashes: Hashes, owners: NDArray[np.int32]) -> Iterator[tuple[int, int]]:
    order = np.argsort(hashes, kind="stable")
    hashes, owners = hashes[order], owners[order]
    starts = np.flatnonzero(np.concatenate([[True], hashes[1:] != hashes[:-1]])) if len(hashes) else order
    ends = np.append(starts[1:], len(hashes))
    shared = ends - starts > 1
    for start, end in zip(starts[shared].tolist(), ends[shared].tolist(), strict=True):
        members = sorted(set(owners[start:end].tolist()))
        if len(members) <= MAX_FILLERS:
            yield from ((one, other) for place, one in enumerate(members) for other in members[place + 1 :])


def _neighbourhoods(texts: Iterable[tuple[str, ...]]) -> list[_Owned]:
    """The hash of each text, and of each text without one of its words; and whose it is. Texts of one length are together."""
    numbers = WordNumbers()
    waiting: dict[int, list[tuple[int, Hashes]]] = defaultdict(list)
    found: list[_Owned] = []
    for position, words in enumerate(texts):
        if MIN_WORDS <= len(words) <= MAX_WORDS:
            waiting[len(words)].append((position, numbers.of(words)))
            if len(waiting[len(words)]) == _BATCH:
                found.append(_hashed(waiting.pop(len(words))))
    return found + [_hashed(same_length) for same_length in waiting.values()]


def _hashed(texts: list[tuple[int, Hashes]]) -> _Owned:
    """For texts of one length, polynomial hashes: of all words, then without each word in turn."""
    terms = np.stack([words for _, words in texts]) * _POWERS[: len(texts[0][1])]
    before = np.cumsum(terms, axis=1, dtype=np.uint64)
    whole = before[:, -1:]
    without = (before - terms) + (whole - before) * np.uint64(INVERSE)
    owners = np.array([position for position, _ in texts], dtype=np.int32)
    return np.hstack([whole, without]).ravel(), np.repeat(owners, terms.shape[1] + 1)


_POWERS = powers(MAX_WORDS)
