"""Label probabilities of rows by a model that was not trained on them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from perpetune.curation.text import fingerprint
from perpetune.quality.embedding_cache import Vectors

INVERSE_PENALTIES = (0.1, 1.0, 10.0)
"""Tried on the first fold: wrong labels and few labels want a strong penalty, many labels a weak one."""
SCALE = 2.0


def out_of_fold(vectors: Vectors, labels: NDArray[np.int64], groups: Sequence[str], folds: int) -> NDArray[np.float64]:
    """Probabilities of shape (rows, labels), by logistic regression on the rows of the other folds.

    `labels` are numbers from 0, each of them with rows. Rows of one group are in one fold. A label that the other folds
    do not have gets 0.
    """
    if not len(labels):
        return np.zeros((0, 0))
    fold_of = folds_of(labels, groups, folds)
    penalty = min(INVERSE_PENALTIES, key=lambda value: _loss(vectors, labels, fold_of == fold_of[0], value))
    found = np.zeros((len(labels), int(labels.max()) + 1))
    for fold in range(folds):
        inside = fold_of == fold
        found[inside] = _probabilities(vectors, labels, inside, penalty)
    return found


def _probabilities(
    vectors: Vectors, labels: NDArray[np.int64], inside: NDArray[np.bool_], penalty: float
) -> NDArray[np.float64]:
    """Label probabilities of the rows inside a fold by a model of those outside, (rows inside, labels)."""
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    found = np.zeros((int(inside.sum()), int(labels.max()) + 1))
    known = labels[~inside]
    if not len(found) or not len(known):
        return found
    if len(set(known.tolist())) < 2:
        found[:, known[0]] = 1.0
        return found
    with threadpool_limits(1):  # the same sums on every machine; and on a busy one, threads of BLAS wait for each other
        model = LogisticRegression(C=penalty, max_iter=300).fit(SCALE * vectors[~inside], known)
        found[:, model.classes_] = model.predict_proba(SCALE * vectors[inside])
    return found


def _loss(vectors: Vectors, labels: NDArray[np.int64], inside: NDArray[np.bool_], penalty: float) -> float:
    """The mean negative log-likelihood of the labels inside a fold."""
    own = _probabilities(vectors, labels, inside, penalty)[np.arange(inside.sum()), labels[inside]]
    return float(-np.log(np.maximum(own, 1e-12)).mean())


def folds_of(labels: NDArray[np.int64], groups: Sequence[str], folds: int) -> NDArray[np.int64]:
    """The fold of each row. The groups of each label take turns in the order of their hashes, so that folds are alike."""
    label_of: dict[str, int] = {}
    for group, label in zip(groups, labels.tolist(), strict=True):
        label_of.setdefault(group, label)
    by_label: dict[int, list[str]] = defaultdict(list)
    for group in sorted(label_of, key=lambda group: (fingerprint("fold", group), group)):
        by_label[label_of[group]].append(group)
    # Rare labels would all begin with the first fold.
    place = {group: n + label for label, members in by_label.items() for n, group in enumerate(members)}
    return np.array([place[group] % folds for group in groups])
