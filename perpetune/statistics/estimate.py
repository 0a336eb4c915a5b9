"""Point estimates with confidence intervals: Wilson and percentile bootstrap."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Numbers drawn at once, so that memory does not grow with the number of rows.
BLOCK = 4_000_000


@dataclass(frozen=True)
class Estimate:
    """A `value` over `n` rows, with an interval [low, high] that contains it."""

    value: float
    low: float
    high: float
    n: int


def wilson(successes: float, n: float, confidence: float) -> Estimate:
    """The success rate with Wilson's score interval (Wilson 1927, JASA 22:209)."""
    ratio = successes / n
    z2 = critical_value(confidence) ** 2
    centre = (ratio + z2 / (2 * n)) / (1 + z2 / n)
    half_width = math.sqrt(z2 * ratio * (1 - ratio) / n + z2 * z2 / (4 * n * n)) / (1 + z2 / n)
    # Rounding can put a limit of 0 or 1 just beyond the rate.
    return Estimate(
        ratio, max(0.0, min(ratio, centre - half_width)), min(1.0, max(ratio, centre + half_width)), round(n)
    )


def critical_value(confidence: float) -> float:
    """The z of a two-sided interval: 1.96 for 0.95."""
    return NormalDist().inv_cdf((1 + confidence) / 2)


def estimate_mean(scores: Sequence[float], *, confidence: float, samples: int, seed: int) -> Estimate:
    """The mean of scores in [0, 1]: Wilson's interval if all are 0 or 1, else a percentile bootstrap."""
    if set(scores) <= {0.0, 1.0}:
        return wilson(int(sum(scores)), len(scores), confidence)
    return bootstrap_mean(scores, lowest=0.0, highest=1.0, confidence=confidence, samples=samples, seed=seed)


def bootstrap_mean(
    scores: Sequence[float], *, lowest: float, highest: float, confidence: float, samples: int, seed: int
) -> Estimate:
    """The mean with a percentile bootstrap interval (Efron 1979).

    `lowest` and `highest` are the range of a score. They matter if all scores are equal, when resampling shows no
    spread: see `interval_of_constant`.
    """
    # Sorted, so that the order of the rows does not change what the seed draws.
    ordered = np.sort(np.asarray(scores, dtype=np.float64))
    value = float(ordered.mean())
    if ordered[0] == ordered[-1]:
        return interval_of_constant(float(ordered[0]), len(ordered), lowest, highest, confidence)
    rng = np.random.default_rng(seed)
    blocks = _blocks(samples, len(ordered))
    means = np.concatenate(
        [ordered[rng.integers(0, len(ordered), (block, len(ordered)))].mean(axis=1) for block in blocks]
    )
    return _percentiles(value, means, len(ordered), confidence)


def bootstrap_counts(
    counts: NDArray[np.int64], statistic: Callable[[Floats], Floats], *, confidence: float, samples: int, seed: int
) -> Estimate:
    """A statistic in [0, 1] of the counts of each kind of row, with a percentile bootstrap interval.

    counts: (kinds,). `statistic` maps counts (samples, kinds) to values (samples,). Rows are resampled by drawing the
    counts from a multinomial distribution.
    """
    n = int(counts.sum())
    value = float(statistic(counts[None, :].astype(np.float64))[0])
    rng = np.random.default_rng(seed)
    blocks = _blocks(samples, len(counts))
    values = np.concatenate(
        [statistic(rng.multinomial(n, counts / n, size=block).astype(np.float64)) for block in blocks]
    )
    if values.min() == values.max() == value:
        return interval_of_constant(value, n, 0.0, 1.0, confidence)
    return _percentiles(value, values, n, confidence)


def interval_of_constant(value: float, n: int, lowest: float, highest: float, confidence: float) -> Estimate:
    """The interval of a mean if all n rows have the same score.

    Unseen kinds of rows make up at most z²/(n + z²) of all (Wilson's limit for 0 of n), and score anything between
    `lowest` and `highest`.
    """
    z2 = critical_value(confidence) ** 2
    unseen = z2 / (n + z2)
    return Estimate(value, value - unseen * (value - lowest), value + unseen * (highest - value), n)


def _percentiles(value: float, resampled: Floats, n: int, confidence: float) -> Estimate:
    tail = (1 - confidence) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail])
    # The value of a biased statistic (macro F1) can lie outside the percentiles.
    return Estimate(value, min(value, float(low)), max(value, float(high)), n)


def _blocks(samples: int, width: int) -> Iterator[int]:
    size = max(1, BLOCK // width)
    for start in range(0, samples, size):
        yield min(size, samples - start)
