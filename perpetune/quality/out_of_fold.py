"""Label probabilities of rows by a model that was not trained on them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from perpetune.curation.text import fingerprint
from perpetune.quality.embedding_cache import Vectors

INVERSE_PENALTY = 10.0
SCALE = 2.0


def out_of_fold(vectors: Vectors, labels: NDArray[np.int64], groups: Sequence[str], folds: int) -> NDArray[np.float64]:
    """Probabilities of shape (rows, labels), by logistic regression on the rows of the other folds.

    `labels` are numbers from 0. Rows of one group are in one fold. A label that the other folds do not have gets 0.
    """
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    fold_of = folds_of(labels, groups, folds)
    found = np.zeros((len(labels), int(labels.max()) + 1))
    for fold in range(folds):
        inside = fold_of == fold
        if not inside.any():
            continue
        known = labels[~inside]
        if len(set(known.tolist())) < 2:
            found[inside, known[0]] = 1.0
            continue
        with threadpool_limits(1):  # the same sums on every machine; and on a busy one, threads of BLAS wait for each other
            model = LogisticRegression(C=INVERSE_PENALTY, max_iter=300).fit(SCALE * vectors[~inside], known)
        found[np.ix_(inside, model.classes_)] = model.predict_proba(SCALE * vectors[inside])
    return found


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
