"""k-center: the rows from which no other row is far (Gonzalez 1985; for training data: Sener and Savarese 2018, ICLR)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from perpetune.quality.embedding_cache import Vectors


def k_center(vectors: Vectors, weights: NDArray[np.float64], budget: int) -> list[int]:
    """`budget` positions of rows: first that nearest to the mean, then always the one farthest from those chosen.

    Distances count as much as the row's weight, (rows,), from 0 to 1.
    """
    if not len(vectors) or budget < 1:
        return []
    first = int(np.argmax((vectors @ vectors.mean(axis=0)) * weights))
    chosen = [first]
    distance = 1 - vectors @ vectors[first]
    left = np.ones(len(vectors), dtype=bool)
    while len(chosen) < min(budget, len(vectors)):
        left[chosen[-1]] = False
        place = int(np.argmax(np.where(left, distance * weights, -np.inf)))
        chosen.append(place)
        distance = np.minimum(distance, 1 - vectors @ vectors[place])
    return chosen
