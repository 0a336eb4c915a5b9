"""Which rows share a key with another row: only these have to be in memory to be compared, or are the same."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Owned = tuple[NDArray[np.uint64], NDArray[np.int32]]
"""Keys, and the row that has each."""


def digest(key: object) -> int:
    """64 bits for a key made of texts. Two keys with one digest only mean that unlike rows are compared."""
    text = repr(key).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")


def are_shared(digests: Iterable[tuple[int, int]]) -> NDArray[np.bool_]:
    """Whether each row shares one of its two keys with another, (rows,)."""
    table = np.fromiter(digests, dtype=np.dtype((np.uint64, 2)))
    shared = np.zeros(len(table), dtype=bool)
    for column in table.T:
        _, places, counts = np.unique(column, return_inverse=True, return_counts=True)
        shared |= counts[places] > 1
    return shared


class Keys:
    """64-bit keys and the number of the row that has each; a row may have several."""

    def __init__(self) -> None:
        self._keys, self._owners = array("Q"), array("i")

    def add(self, keys: Sequence[int], owner: int) -> None:
        self._keys.extend(keys)
        self._owners.extend([owner] * len(keys))

    def arrays(self) -> Owned:
        return np.array(self._keys, dtype=np.uint64), np.array(self._owners, dtype=np.int32)

    def found_among(self, other: Keys) -> Iterator[tuple[int, int]]:
        """The pairs of a row with one of these keys, and a row that has it in the other collection."""
        (keys, owners), (known, of_known) = self.arrays(), other.arrays()
        order = np.argsort(known, kind="stable")
        known, of_known = known[order], of_known[order]
        places = np.minimum(np.searchsorted(known, keys), max(len(known) - 1, 0))
        found = known[places] == keys if len(known) else np.zeros(len(keys), dtype=bool)
        yield from zip(owners[found].tolist(), of_known[places[found]].tolist(), strict=True)


def components(keys: Keys, count: int) -> NDArray[np.int32]:
    """For each of so many rows the number of its component: rows that share a key, also by way of others.

    The components are numbered in the order of their first rows.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    known, owners = keys.arrays()
    different, places = np.unique(known, return_inverse=True)
    size = count + len(different)
    graph = coo_array((np.ones(len(known), dtype=np.int8), (owners, count + places)), shape=(size, size))
    _, labels = connected_components(graph, directed=False)
    _, first, numbers = np.unique(labels[:count], return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int32)
    rank[np.argsort(first)] = np.arange(len(first))
    return np.asarray(rank[numbers])


def sharing(keys: NDArray[np.uint64], owners: NDArray[np.int32], most: int) -> Iterator[tuple[int, int]]:
    """The pairs of owners of one key, if it has at most so many; a pair may come twice."""
    order = np.argsort(keys, kind="stable")
    keys, owners = keys[order], owners[order]
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]])) if len(keys) else order
    ends = np.append(starts[1:], len(keys))
    shared = ends - starts > 1
    for start, end in zip(starts[shared].tolist(), ends[shared].tolist(), strict=True):
        members = sorted(set(owners[start:end].tolist()))
        if len(members) <= most:
            yield from ((one, other) for place, one in enumerate(members) for other in members[place + 1 :])
