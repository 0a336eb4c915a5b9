"""Hashes of sequences of words: numbers for words, and polynomials of them modulo 2^64."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]

BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2^64
INVERSE = pow(BASE, -1, 2**64)


def powers(count: int) -> Hashes:
    """The first powers of the base."""
    return np.array([pow(BASE, exponent, 2**64) for exponent in range(count)], dtype=np.uint64)


class WordNumbers(dict[str, int]):
    """A random number for each word, by splitmix64 (Steele et al. 2014, OOPSLA) of its rank."""

    def __missing__(self, word: str) -> int:
        mixed = (len(self) + 1) * 0x9E3779B97F4A7C15 % 2**64
        mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB % 2**64
        self[word] = mixed ^ mixed >> 31
        return self[word]

    def of(self, words: Iterable[str]) -> Hashes:
        return np.array([self[word] for word in words], dtype=np.uint64)
