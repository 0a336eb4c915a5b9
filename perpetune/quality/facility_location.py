"""Facility location: the rows that stand for all others best.

The sum over all rows of the similarity to the nearest chosen one. It is submodular, so that the greedy choice has at least
63% of the best value (Nemhauser, Wolsey and Fisher 1978, Mathematical Programming 14:265); evaluated lazily (Minoux 1978).
For choosing training data: Wei, Iyer and Bilmes 2015, ICML. What stands for all others lies in the middle of crowds, so that
the mean of few chosen rows is not that of all: exchanges correct it (`mean_matching`, decision 23).
"""

from __future__ import annotations

import heapq

import numpy as np
from numpy.typing import NDArray

from perpetune.quality.embedding_cache import Vectors
from perpetune.quality.mean_matching import with_matched_mean

BLOCK = 4_000
"""Rows whose similarities are in memory at once, 64 MB. Beyond it each block chooses for itself (Mirzasoleiman et al. 2013,
"Distributed Submodular Maximization", NeurIPS)."""


def facility_location(vectors: Vectors, weights: NDArray[np.float64], budget: int) -> list[int]:
    """`budget` positions of rows. `weights` (rows,), from 0 to 1, say how good each row is.

    A row of small weight counts little among those that must be stood for, and is chosen late.
    """
    if len(vectors) <= BLOCK:
        return _chosen(vectors, weights, min(budget, len(vectors)))
    blocks = np.array_split(np.arange(len(vectors)), -(-len(vectors) // BLOCK))
    shares = np.diff([round(budget * int(block[-1] + 1) / len(vectors)) for block in blocks], prepend=0)
    chosen = [
        [int(block[place]) for place in _chosen(vectors[block], weights[block], int(share))]
        for block, share in zip(blocks, shares, strict=True)
    ]
    return [place for block in chosen for place in block]


def _chosen(vectors: Vectors, weights: NDArray[np.float64], budget: int) -> list[int]:
    return with_matched_mean(vectors, weights, _greedy(vectors, weights, budget))


def _greedy(vectors: Vectors, weights: NDArray[np.float64], budget: int) -> list[int]:
    similarities = np.maximum(vectors @ vectors.T, 0)
    nearest = np.zeros(len(vectors), dtype=similarities.dtype)
    demand = weights.astype(similarities.dtype)

    def gain(place: int) -> float:
        return float(demand @ np.maximum(similarities[place] - nearest, 0)) * float(weights[place])

    bounds = [(-gain(place), place) for place in range(len(vectors))]
    heapq.heapify(bounds)
    chosen: list[int] = []
    while len(chosen) < budget:
        _, place = heapq.heappop(bounds)
        fresh = (-gain(place), place)
        if bounds and fresh > bounds[0]:
            heapq.heappush(bounds, fresh)
            continue
        chosen.append(place)
        nearest = np.maximum(nearest, similarities[place])
    return chosen
