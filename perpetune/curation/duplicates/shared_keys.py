"""Which rows share a key with another row. Only these have to be in memory to be compared."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray


def digest(key: object) -> int:
    """64 bits for a key made of texts. Two keys with one digest only mean that their rows are compared in vain."""
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
