"""Ratios of two sums over rows that come in clusters, such as the cost of a request or of a right answer."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from perpetune.statistics.distributions import t_quantile
from perpetune.statistics.estimate import Estimate, Floats


@dataclass(frozen=True)
class ClusteredRatio:
    """A ratio of sums with its variance over `clusters`; with fewer than two the variance is not known and stays 0."""

    value: float
    variance: float
    clusters: int

    def estimate(self, confidence: float, lowest: float = -math.inf) -> Estimate:
        """With Student's t at clusters - 1 degrees of freedom, and not below `lowest`.

        `n` are the clusters; one gives no width.
        """
        found = _estimate(self.value, self.variance, self.clusters - 1, self.clusters, confidence)
        return replace(found, low=max(lowest, found.low))


def clustered_ratio(above: Floats, below: Floats, clusters: Sequence[Hashable]) -> ClusteredRatio:
    """sum(above) / sum(below), both (rows,), with the linearised variance of a ratio of clusters' totals.

    Rows of one cluster count as one observation (Cochran 1977, Sampling Techniques, chapter 6). The order of the rows
    does not matter. Raises ValueError if sum(below) is not positive.
    """
    names = {name: number for number, name in enumerate(dict.fromkeys(clusters))}
    of_row = np.array([names[name] for name in clusters])
    total = math.fsum(below)
    if total <= 0:
        raise ValueError("the sum below the line is not positive")
    value, count = math.fsum(above) / total, len(names)
    if count < 2:
        return ClusteredRatio(value, 0.0, count)
    residuals = np.bincount(of_row, above, count) - value * np.bincount(of_row, below, count)
    variance = count / (count - 1) * math.fsum(residuals**2) / total**2
    # Sums of equal rows differ by rounding, which is no spread.
    rounding = (np.finfo(np.float64).eps * len(of_row) * value) ** 2
    return ClusteredRatio(value, variance if variance > rounding else 0.0, count)


def difference(first: ClusteredRatio, second: ClusteredRatio, confidence: float) -> Estimate:
    """First minus second, taken as independent, with Welch's degrees of freedom.

    Two systems' costs of the same rows rise together, so the interval is rather too wide than too narrow. `n` is the
    smaller number of clusters; one cluster gives no width.
    """
    variance, clusters = first.variance + second.variance, min(first.clusters, second.clusters)
    if clusters < 2 or not variance:
        return _estimate(first.value - second.value, 0.0, 1, clusters, confidence)
    parts = sum(each.variance**2 / (each.clusters - 1) for each in (first, second))
    return _estimate(first.value - second.value, variance, variance**2 / parts, clusters, confidence)


def _estimate(value: float, variance: float, freedom: float, clusters: int, confidence: float) -> Estimate:
    half = t_quantile((1 + confidence) / 2, freedom) * math.sqrt(variance) if variance else 0.0
    return Estimate(value, value - half, value + half, clusters)
