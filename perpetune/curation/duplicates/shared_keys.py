"""Which rows share a key with another row. Only these have to be in memory to be compared."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray


def digest(key: object) -> int:
    """64 bits for a key of texts. Two keys with one digest only mean that their rows are compared in vain."""
    text = repr(key).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")


def share_any(digests: Iterable[Sequence[int]], keys: int) -> NDArray[np.bool_]:
    """Whether each row shares one of its keys with another, (rows,), by the digests of its `keys` keys."""
    table = np.fromiter((each for row in digests for each in row), dtype=np.uint64).reshape(-1, keys)
    shared = np.zeros(len(table), dtype=bool)
    for column in table.T:
        _, places, counts = np.unique(column, return_inverse=True, return_counts=True)
        shared |= counts[places] > 1
    return shared
