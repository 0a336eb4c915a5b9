"""A classifier two-sample test: are two samples of texts, or of anything with features, from one distribution?

Lopez-Paz & Oquab, "Revisiting Classifier Two-Sample Tests", ICLR 2017: if a classifier tells the samples apart on rows that
it was not fitted on, they differ. The statistic is its area under the ROC curve; the p-value is by permutation and so exact
at any size (Hemerik & Goeman, TEST 27 (2018) 811).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class TwoSampleTest:
    """`auc`: the area under the ROC curve of a classifier between the samples, 0.5 if it cannot tell them apart.

    `p_value` is one-sided for "it is larger than by chance", from `permutations`.
    """

    auc: float
    p_value: float
    permutations: int


def classifier_test(
    kernel: Floats, is_new: Sequence[bool], groups: Sequence[str], *, permutations: int, seed: int, ridge: float = 1.0
) -> TwoSampleTest:
    """Test whether the rows with `is_new` are from the distribution of the others.

    kernel: (rows, rows), inner products of the rows' features. The classifier is a ridge regression on the two classes
    (regularised least squares; Rifkin, Yeo & Poggio 2003), whose predictions without a row's own group have a closed form,
    so that every permutation is fitted and cross-validated again. Rows of one group (a document, a user) are dependent: a
    group is left out, and permuted, as a whole. One that has rows of both samples counts as two.
    """
    member = _positions([f"{new:d} {group}" for new, group in zip(is_new, groups, strict=True)])
    labels = np.asarray(is_new, dtype=np.float64)
    centred = kernel - kernel.mean(axis=0) - kernel.mean(axis=1)[:, None] + kernel.mean()
    scale = float(np.trace(centred)) / len(labels) or 1.0
    hat = np.linalg.solve(centred / scale + ridge * np.eye(len(labels)), centred / scale) + 1 / len(labels)
    permuted = np.column_stack([labels, _permuted(labels, member, permutations, seed)])
    areas = _areas(_without_own_group(hat, permuted, member), permuted)
    beyond = int((areas[1:] >= areas[0] - 1e-12).sum())
    return TwoSampleTest(float(areas[0]), (1 + beyond) / (1 + permutations), permutations)


def _positions(names: Sequence[str]) -> list[NDArray[np.intp]]:
    """The rows of each name."""
    _, codes = np.unique(np.asarray(names), return_inverse=True)
    order = np.argsort(codes, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(codes[order])) + 1)


def _permuted(labels: Floats, member: Sequence[NDArray[np.intp]], permutations: int, seed: int) -> Floats:
    """Labels (rows, permutations): as many groups of the new sample as there are, drawn at random."""
    chance = np.random.default_rng(seed)
    of_group = np.array([labels[rows[0]] for rows in member])
    drawn = np.column_stack([chance.permutation(of_group) for _ in range(permutations)])
    found = np.empty((len(labels), permutations))
    for rows, values in zip(member, drawn, strict=True):
        found[rows] = values
    return found


def _without_own_group(hat: Floats, labels: Floats, member: Sequence[NDArray[np.intp]]) -> Floats:
    """Predictions (rows, columns) for each row by a fit without the rows of its group.

    The residual without a group is the residual with it, divided by 1 - hat (PRESS; Allen, Technometrics 16 (1974) 125);
    for a group of several rows by a matrix.
    """
    residuals = labels - hat @ labels
    for rows in member:
        own = np.eye(len(rows)) - hat[np.ix_(rows, rows)]
        residuals[rows] = np.linalg.solve(own, residuals[rows])
    return np.asarray(labels - residuals)


def _areas(scores: Floats, labels: Floats) -> Floats:
    """The area under the ROC curve of each column: the chance that a new row scores above another one."""
    ranks = rankdata(scores, axis=0)
    new = labels.sum(axis=0)
    return np.asarray(((ranks * labels).sum(axis=0) - new * (new + 1) / 2) / (new * (len(labels) - new)))
