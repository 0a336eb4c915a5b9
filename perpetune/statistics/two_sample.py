"""Two-sample tests: are two samples of texts, or of anything with features, from one distribution?

By a classifier (Lopez-Paz & Oquab, "Revisiting Classifier Two-Sample Tests", ICLR 2017): if it tells the samples apart on
rows that it was not fitted on, they differ. By nearest neighbours (Schilling, JASA 81 (1986) 799; Henze, Annals of
Statistics 16 (1988) 772): if new rows have new neighbours more often than by chance, they differ. A classifier finds what
has changed in all rows a little, neighbours what is new in a few: the evidence of each row's neighbourhood is a likelihood
ratio, as in scan statistics (Kulldorff, Communications in Statistics 26 (1997) 1481), and its square counts, so that a few
rows that are surely new outweigh the chance of many that are not.

The p-values are by permutation and so exact at any size (Hemerik & Goeman, TEST 27 (2018) 811). Permutations end early once
the samples are plainly alike (Besag & Clifford, Biometrika 78 (1991) 301), so that only a difference costs many of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.special import xlogy
from scipy.stats import rankdata

Floats = NDArray[np.float64]
Statistic = Callable[[Floats], Floats]
"""statistic(labels of shape (rows, columns)), one value for each column; labels are 1 for the new sample and 0 else."""

ENOUGH = 10  # permutations beyond what was seen, at which the samples are plainly alike
_TINY = 1e-300
FIRST_BATCH, BATCH = 50, 500  # permutations computed at once: few first, which often are enough


@dataclass(frozen=True)
class TwoSampleTest:
    """`auc`: the area under the ROC curve of a classifier between the samples, 0.5 if it cannot tell them apart.

    `p_value` is one-sided for "it is larger than by chance", from `permutations`.
    """

    auc: float
    p_value: float
    permutations: int


@dataclass(frozen=True)
class NeighbourTest:
    """`own`: the ratio of the new rows' nearest neighbours that are new themselves; `by_chance`: what it is without a change.

    `p_value` is one-sided for "rows have more neighbours of their own sample than by chance", from `permutations`.
    """

    own: float
    by_chance: float
    p_value: float
    permutations: int


def classifier_test(
    kernel: Floats, is_new: Sequence[bool], groups: Sequence[str], *, permutations: int, seed: int, ridge: float = 1.0
) -> TwoSampleTest:
    """Test whether the rows with `is_new` are from the distribution of the others.

    kernel: (rows, rows), inner products of the rows' features. The classifier is a ridge regression on the two classes
    (regularised least squares; Rifkin, Yeo & Poggio 2003), whose predictions without a row's own group have a closed form,
    so that every permutation is fitted and cross-validated again. Rows of one group (a document, a user) are dependent: a
    group is left out, and permuted, as a whole. One that has rows of both samples counts as two. At most so many
    `permutations` are tried.
    """
    member = _members(is_new, groups)
    centred = kernel - kernel.mean(axis=0) - kernel.mean(axis=1)[:, None] + kernel.mean()
    scale = float(np.trace(centred)) / len(kernel) or 1.0
    hat = np.linalg.solve(centred / scale + ridge * np.eye(len(kernel)), centred / scale) + 1 / len(kernel)

    def areas(labels: Floats) -> Floats:
        return _areas(_without_own_group(hat, labels, member), labels)

    found, p_value, tried = _permutation_test(areas, np.asarray(is_new, dtype=np.float64), member, permutations, seed)
    return TwoSampleTest(found, p_value, tried)


def neighbour_test(
    graph: csr_array, is_new: Sequence[bool], groups: Sequence[str], *, permutations: int, seed: int
) -> NeighbourTest:
    """Test whether the rows with `is_new` are from the distribution of the others, by their neighbours.

    graph: (rows, rows), 1 at each row's neighbours, as `nearest` finds them. Rows of one group are permuted together. The
    statistic is the mean, over the new rows, of the squared log-likelihood ratio of "more of its neighbours are new than by
    chance".
    """
    labels = np.asarray(is_new, dtype=np.float64)
    degrees = np.asarray(graph.sum(axis=1), dtype=np.float64).reshape(-1, 1)

    def evidence(columns: Floats) -> Floats:
        ratios = surplus_ratios(np.asarray(graph @ columns), degrees, columns.mean(axis=0))
        return np.asarray((columns * ratios**2).sum(axis=0) / np.maximum(columns.sum(axis=0), 1))

    _, p_value, tried = _permutation_test(evidence, labels, _members(is_new, groups), permutations, seed)
    new = int(labels.sum())
    own = float((labels * (graph @ labels)).sum() / max(graph[labels.astype(bool)].nnz, 1))
    return NeighbourTest(own, (new - 1) / max(len(labels) - 1, 1), p_value, tried)


def surplus_ratios(new: Floats, neighbours: Floats, by_chance: Floats) -> Floats:
    """Log-likelihood ratios of "more neighbours are new than by chance": `new` of `neighbours`, by broadcasting.

    `by_chance` is the ratio without a change. 0 if no more are new than that.
    """
    old, rare = neighbours - new, 1 - by_chance
    found = xlogy(new, new / np.maximum(neighbours * by_chance, _TINY))
    found = found + xlogy(old, old / np.maximum(neighbours * rare, _TINY))
    return np.asarray(np.where(new > neighbours * by_chance, found, 0.0))


def nearest(similarity: Floats, groups: Sequence[str], neighbours: int) -> csr_array:
    """A graph (rows, rows) with 1 at each row's nearest neighbours in other groups; similarity: (rows, rows)."""
    _, codes = np.unique(np.asarray(groups), return_inverse=True)
    kept = np.where(codes[:, None] == codes[None, :], -np.inf, similarity)
    count = min(neighbours, len(codes) - 1)
    near = np.argpartition(-kept, count - 1, axis=1)[:, :count]
    rows = np.repeat(np.arange(len(codes)), count)
    usable = np.isfinite(kept[rows, near.ravel()])
    pairs = (rows[usable], near.ravel()[usable])
    return csr_array((np.ones(len(pairs[0])), pairs), shape=similarity.shape)


def _permutation_test(
    statistic: Statistic, labels: Floats, member: Sequence[NDArray[np.intp]], permutations: int, seed: int
) -> tuple[float, float, int]:
    """What was seen, its p-value and the permutations tried: fewer if `ENOUGH` of them lie beyond it."""
    chance = np.random.default_rng(seed)
    seen = float(statistic(labels[:, None])[0])
    beyond = tried = 0
    while tried < permutations:
        count = min(max(FIRST_BATCH, tried), BATCH, permutations - tried)
        found = np.cumsum(statistic(_permuted(labels, member, count, chance)) >= seen - 1e-12)
        if beyond + found[-1] >= ENOUGH:
            tried += int(np.searchsorted(found, ENOUGH - beyond)) + 1
            return seen, ENOUGH / tried, tried
        beyond, tried = beyond + int(found[-1]), tried + count
    return seen, (1 + beyond) / (1 + tried), tried


def _members(is_new: Sequence[bool], groups: Sequence[str]) -> list[NDArray[np.intp]]:
    """The rows of each group; a group that has rows of both samples is two."""
    return _positions([f"{new:d} {group}" for new, group in zip(is_new, groups, strict=True)])


def _positions(names: Sequence[str]) -> list[NDArray[np.intp]]:
    """The rows of each name."""
    _, codes = np.unique(np.asarray(names), return_inverse=True)
    order = np.argsort(codes, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(codes[order])) + 1)


def _permuted(
    labels: Floats, member: Sequence[NDArray[np.intp]], permutations: int, chance: np.random.Generator
) -> Floats:
    """Labels (rows, permutations): as many groups of the new sample as there are, drawn at random."""
    of_group = np.array([labels[rows[0]] for rows in member])
    drawn = chance.permuted(np.repeat(of_group[:, None], permutations, axis=1), axis=0)
    group_of = np.empty(len(labels), dtype=np.intp)
    for group, rows in enumerate(member):
        group_of[rows] = group
    return np.asarray(drawn[group_of])


def _without_own_group(hat: Floats, labels: Floats, member: Sequence[NDArray[np.intp]]) -> Floats:
    """Predictions (rows, columns) for each row by a fit without the rows of its group.

    The residual without a group is the residual with it, divided by 1 - hat (PRESS; Allen, Technometrics 16 (1974) 125);
    for a group of several rows by a matrix.
    """
    residuals = labels - hat @ labels
    alone = np.array([rows[0] for rows in member if len(rows) == 1], dtype=np.intp)
    residuals[alone] /= (1 - np.diag(hat)[alone])[:, None]
    for rows in member:
        if len(rows) == 1:
            continue
        own = np.eye(len(rows)) - hat[np.ix_(rows, rows)]
        residuals[rows] = np.linalg.solve(own, residuals[rows])
    return np.asarray(labels - residuals)


def _areas(scores: Floats, labels: Floats) -> Floats:
    """The area under the ROC curve of each column: the chance that a new row scores above another one."""
    ranks = rankdata(scores, axis=0)
    new = labels.sum(axis=0)
    return np.asarray(((ranks * labels).sum(axis=0) - new * (new + 1) / 2) / (new * (len(labels) - new)))
