"""Independent units of a comparison: the rows of one group, such as a user or a document, count as one observation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from perpetune.statistics.estimate import Floats


@dataclass(frozen=True)
class Units:
    """The weight of each unit, and its total of weighted differences; sorted, so that the order of rows is lost."""

    weights: Floats
    totals: Floats

    @property
    def mean(self) -> float:
        """The weighted mean difference of all rows."""
        return float(self.totals.sum() / self.weights.sum())

    @property
    def means(self) -> Floats:
        """The mean difference of each unit."""
        return self.totals / self.weights


def units_of(differences: Floats, groups: Sequence[str] | None, weights: Sequence[float] | None) -> Units:
    """Sums of rows by group; without groups each row is a unit, and without weights each row counts alike."""
    rows = np.ones_like(differences) if weights is None else np.asarray(weights, dtype=np.float64)
    if groups is None:
        of = np.arange(len(differences))
    else:
        _, of = np.unique(np.asarray(groups, dtype=object).astype(str), return_inverse=True)
    size = int(of.max()) + 1
    summed = np.zeros(size), np.zeros(size)
    row_order = np.lexsort((differences, rows, of))
    np.add.at(summed[0], of[row_order], rows[row_order])
    np.add.at(summed[1], of[row_order], (rows * differences)[row_order])
    order = np.lexsort(summed[::-1])
    return Units(summed[0][order], summed[1][order])


def are_rows(groups: Sequence[str] | None, weights: Sequence[float] | None) -> bool:
    """Whether each row is a unit of its own and all count alike."""
    alone = groups is None or len(set(groups)) == len(groups)
    return alone and (weights is None or len(set(weights)) <= 1)


def effective_rows(units: Units, differences: Floats, weights: Sequence[float] | None) -> float:
    """The number of independent rows of equal weight with the same variance of the mean: rows by design effect (Kish 1965).

    If no row differs, the variance is not known, and weights and group sizes decide (Kish's effective sample size).
    """
    rows = np.ones_like(differences) if weights is None else np.asarray(weights, dtype=np.float64)
    of_units = float((units.totals**2).sum())
    if not of_units:
        return float(units.weights.sum() ** 2 / (units.weights**2).sum())
    of_rows = mean_square(differences, weights) / len(rows)
    return min(float(len(rows)), len(rows) * of_rows * math.fsum(rows) ** 2 / of_units)


def mean_square(differences: Floats, weights: Sequence[float] | None) -> float:
    """The weighted mean of squared differences, the same in any order of the rows."""
    rows = np.ones_like(differences) if weights is None else np.asarray(weights, dtype=np.float64)
    return math.fsum(rows * differences**2) / math.fsum(rows)
