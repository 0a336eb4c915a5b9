"""Pairs of texts whose embeddings are alike."""

from __future__ import annotations

import numpy as np

from perpetune.quality.embedding_cache import Vectors

MOST = 100
"""Nearest texts of each that count: if thousands are alike, their pairs would be more than memory holds."""
_BLOCK = 2_000


def alike(vectors: Vectors, threshold: float) -> list[tuple[int, int]]:
    """Pairs of positions, in order, of unit vectors with at least this cosine similarity; each with its nearest others.

    Exact, so that work grows with the square of the rows: a few seconds for 20,000.
    """
    pairs: set[tuple[int, int]] = set()
    for start in range(0, len(vectors), _BLOCK):
        similarities = vectors[start : start + _BLOCK] @ vectors.T
        for row, similarity in enumerate(similarities, start=start):
            near = np.flatnonzero(similarity >= threshold)
            nearest = near[np.argsort(-similarity[near], kind="stable")][: MOST + 1]
            pairs |= {(min(row, other), max(row, other)) for other in nearest.tolist() if other != row}
    return sorted(pairs)
