"""How hard a row is to learn, and how much that counts in a selection.

With labels it is the error vector's length, EL2N (Paul, Ganguli and Dziugaite 2021, "Deep Learning on a Data Diet",
NeurIPS), of a model that was not trained on the row: a proxy for the loss of the base model, which costs a pass of that
model over all rows. Without labels it is the distance to the nearest of a few prototypes (Sorscher et al. 2022, "Beyond
neural scaling laws", NeurIPS, section 5). Both found that hard rows are worth more if there are many, and easy ones if
there are few.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from perpetune.quality.embedding_cache import Vectors
from perpetune.quality.judge import Opinions

Prefer = Literal["none", "hard", "easy"]
PROTOTYPES = 20
LEAST = 0.25
"""The weight of the row that is preferred least. The most preferred one has 1."""
_SEED = 7


def el2n(opinions: Opinions) -> NDArray[np.float64]:
    """The Euclidean distance of the probabilities from the given label, from 0 to the root of 2, (rows,)."""
    errors = opinions.probabilities.copy()
    errors[np.arange(len(errors)), opinions.given] -= 1.0
    return np.asarray(np.linalg.norm(errors, axis=1))


def distance_to_prototypes(vectors: Vectors) -> NDArray[np.float64]:
    """1 less the cosine similarity to the nearest centre of k-means, (rows,)."""
    from sklearn.cluster import MiniBatchKMeans
    from threadpoolctl import threadpool_limits

    if len(vectors) <= PROTOTYPES:
        return np.zeros(len(vectors))
    with threadpool_limits(1):  # the same sums on every machine
        found = MiniBatchKMeans(PROTOTYPES, random_state=_SEED, n_init=3).fit(vectors)
    centres = found.cluster_centers_ / np.maximum(np.linalg.norm(found.cluster_centers_, axis=1, keepdims=True), 1e-9)
    return np.asarray(1 - (vectors @ centres.T.astype(vectors.dtype)).max(axis=1), dtype=np.float64)


def preference(hardness: NDArray[np.float64], prefer: Prefer) -> NDArray[np.float64]:
    """Weights from `LEAST` to 1 by the rank of each row's hardness, (rows,); equal rows have equal weights."""
    if prefer == "none" or not len(hardness):
        return np.ones(len(hardness))
    values, places = np.unique(hardness if prefer == "hard" else -hardness, return_inverse=True)
    return np.asarray(LEAST + (1 - LEAST) * places / max(1, len(values) - 1))
