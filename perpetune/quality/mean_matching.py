"""Chosen rows whose mean is that of all: what a linear model sees of a label is mostly where its rows lie on average.

Herding (Welling 2009, ICML; Chen, Welling and Smola 2010, "Super-Samples from Kernel Herding", UAI) chooses rows so that
their mean approaches that of all. Here rows that were chosen otherwise are exchanged for others as long as the mean comes
nearer (Fedorov's exchanges: Fedorov 1972, "Theory of Optimal Experiments"), so that most of the earlier choice stays.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from perpetune.quality.embedding_cache import Vectors

_LEAST_GAIN = 1e-6


def with_matched_mean(vectors: Vectors, weights: NDArray[np.float64], chosen: Sequence[int]) -> list[int]:
    """The chosen positions after exchanges, each for the row that brings their mean nearest to the weighted mean of all.

    `vectors` are unit vectors, (rows, size); `weights`, (rows,), from 0 to 1. A row is exchanged only for one of at least
    its own weight, and at most two exchanges are made for each chosen row.
    """
    found = np.array(chosen, dtype=np.int64)
    if not len(found) or not weights.sum() > 0:
        return list(chosen)
    wanted = len(found) * (weights @ vectors) / weights.sum()
    similarities = vectors[found] @ vectors.T
    for _ in range(2 * len(found)):
        excess = vectors[found].sum(axis=0) - wanted
        # The squared length of the excess after an exchange, less that before it.
        pull = vectors @ excess
        change = 2 * (pull[None, :] - pull[found, None] + 1 - similarities)
        change[:, found] = np.inf
        change[weights[None, :] < weights[found, None]] = np.inf
        place, new = np.unravel_index(int(change.argmin()), change.shape)
        if not change[place, new] < -_LEAST_GAIN:
            break
        found[place] = new
        similarities[place] = vectors[new] @ vectors.T
    return [int(each) for each in found]
