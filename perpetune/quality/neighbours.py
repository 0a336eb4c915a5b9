"""Pairs of texts whose embeddings are alike."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from perpetune.quality.embedding_cache import Vectors

MOST = 100
"""Nearest texts of each that count: if thousands are alike, their pairs would be more than memory holds."""
EXACT = 20_000
"""Texts that are all compared with each other, in a few seconds. Beyond it cells are compared."""
PROBED = 8
"""Cells in which the like of a text are looked for."""
_SAMPLE = 64  # texts for each cell that the cells are found on
_QUERIES, _MEMBERS = 2_000, 4_000  # of one matrix product: 32 MB
_SEED = 7
Found = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]


def alike(vectors: Vectors, threshold: float, exact: int = EXACT) -> list[tuple[int, int]]:
    """Pairs of positions, in order, of unit vectors with at least this cosine similarity; each with its nearest others.

    Up to `exact` texts all are compared. Of more, each is compared with those of the cells nearest to it (an inverted
    file: Sivic and Zisserman 2003, ICCV; Johnson, Douze and Jégou 2019, IEEE Transactions on Big Data 7:535), so that work
    grows with the power 1.5 of the texts. Memory is that of the pairs and of one matrix product in both cases.
    """
    everything = np.arange(len(vectors))
    found = [(everything, everything)] if len(vectors) <= exact else _cells(vectors)
    kept = _nearest([each for queries, members in found for each in _compared(vectors, queries, members, threshold)])
    return sorted({(min(pair), max(pair)) for pair in kept})


def _cells(vectors: Vectors) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Of each cell, the texts that look for their like in it, and those that lie in it."""
    centres = _centres(vectors)
    probed = np.empty((len(vectors), min(PROBED, len(centres))), np.int64)
    for start in range(0, len(vectors), _QUERIES):
        similarity = vectors[start : start + _QUERIES] @ centres.T
        probed[start : start + _QUERIES] = np.argsort(-similarity, axis=1)[:, : probed.shape[1]]
    texts = np.repeat(np.arange(len(vectors)), probed.shape[1])
    order = np.argsort(probed.ravel(), kind="stable")
    ends = np.searchsorted(probed.ravel()[order], np.arange(len(centres) + 1))
    for cell in range(len(centres)):
        queries = texts[order[ends[cell] : ends[cell + 1]]]
        yield queries, queries[probed[queries, 0] == cell]


def _centres(vectors: Vectors) -> Vectors:
    """Centres of cells by k-means on a sample, as many as the root of the texts, (cells, size)."""
    from sklearn.cluster import MiniBatchKMeans
    from threadpoolctl import threadpool_limits

    count = max(1, round(len(vectors) ** 0.5))
    draw = np.random.default_rng(_SEED)
    sample = vectors[np.sort(draw.choice(len(vectors), min(len(vectors), _SAMPLE * count), replace=False))]
    with threadpool_limits(1):  # the same sums on every machine
        means = MiniBatchKMeans(count, random_state=_SEED, n_init=1, batch_size=4096, max_iter=20).fit(sample)
    centres = means.cluster_centers_
    lengths = np.maximum(np.linalg.norm(centres, axis=1, keepdims=True), 1e-9)
    return np.asarray(centres / lengths, dtype=np.float32)


def _compared(
    vectors: Vectors, queries: NDArray[np.int64], members: NDArray[np.int64], threshold: float
) -> Iterator[Found]:
    """Query, member and similarity of those that are alike, and each query's nearest ones only."""
    for start in range(0, len(queries), _QUERIES):
        asked = queries[start : start + _QUERIES]
        parts: list[Found] = []
        for first in range(0, len(members), _MEMBERS):
            others = members[first : first + _MEMBERS]
            similarity = vectors[asked] @ vectors[others].T
            rows, columns = np.nonzero(_thinned(similarity, threshold))
            differ = asked[rows] != others[columns]
            rows, columns = rows[differ], columns[differ]
            parts = [_trimmed([*parts, (asked[rows], others[columns], similarity[rows, columns])])]
        yield from parts


def _thinned(similarity: NDArray[np.float32], threshold: float) -> NDArray[np.bool_]:
    """Which of (queries, members) are alike; of more than `MOST` and the text itself, the nearest ones."""
    near = similarity >= threshold
    for row in np.flatnonzero(near.sum(axis=1) > MOST + 1):
        places = np.flatnonzero(near[row])
        near[row, places[np.argsort(-similarity[row, places], kind="stable")][MOST + 1 :]] = False
    return np.asarray(near)


def _trimmed(parts: list[Found]) -> Found:
    """Of each query at most `MOST` pairs, those with the highest similarity; equal ones by position."""
    one, other, similarity = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    order = np.lexsort((other, -similarity, one))
    one, other, similarity = one[order], other[order], similarity[order]
    rank = np.arange(len(one)) - np.searchsorted(one, one)
    kept = rank < MOST
    return one[kept], other[kept], similarity[kept]


def _nearest(parts: list[Found]) -> list[tuple[int, int]]:
    if not parts:
        return []
    one, other, _ = _trimmed(parts)
    return list(zip(one.tolist(), other.tolist(), strict=True))
