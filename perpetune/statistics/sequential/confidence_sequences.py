"""Confidence sequences: intervals of a mean that stay valid however often they are checked, in whatever order rows come.

Each candidate mean is tested by a martingale that starts at 1 and, against the true mean, ever reaches 1/alpha with a
probability of at most alpha (Ville's inequality). The interval holds the means against which it has stayed below. Both
martingales here are mixtures with fixed stakes, so that they depend on the rows alone, not on their order or on how they
were divided into checks. Later checks may only append observations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import betaln, xlog1py, xlogy

from perpetune.statistics.sequential.betting import p_value_above

Numbers = npt.NDArray[np.float64]

STEPS = 24  # of the bisection for an end of an interval
PRIOR = 0.5  # of both outcomes, in the mixture: Jeffreys' prior
TUNED_FOR = 200  # observations: `drifting_mean_interval` is narrowest there


@dataclass(frozen=True)
class SequentialEstimate:
    """The mean of `n` observations with bounds that hold at all checks simultaneously."""

    mean: float
    low: float
    high: float
    n: int


def mean_interval(observations: Sequence[float] | Numbers, alpha: float) -> SequentialEstimate:
    """The mean of observations in [0, 1], with bounds that hold at all checks simultaneously.

    The true mean is ever outside the bounds with a probability of at most `alpha`: by `ratio_bounds` for zeros and ones, else
    by betting. Raises ValueError if an observation is outside [0, 1].
    """
    values = _validated(observations)
    if not values.size:
        return SequentialEstimate(0.5, 0.0, 1.0, 0)
    mean = float(values.mean())
    if np.isin(values, (0.0, 1.0)).all():
        low, high = ratio_bounds(int(values.sum()), values.size, alpha)
    else:
        low, high = ((1 + end) / 2 for end in _bounds(2 * values - 1, alpha))
    return SequentialEstimate(mean, min(low, mean), max(high, mean), values.size)


def ratio_bounds(count: int, rows: int, alpha: float) -> tuple[float, float]:
    """Bounds of a probability after `count` of `rows` independent events, that hold at all times together.

    (Robbins, Statistical methods related to the law of the iterated logarithm, Annals of Mathematical Statistics 41 (1970).)
    """

    if not rows:
        return 0.0, 1.0
    plausible = float(ratio_evidence(count, rows, count / rows)) + math.log(alpha)

    def is_plausible(probability: float) -> bool:
        """Whether the probability is less likely than the ratio by so little; in plain floats, which are quick."""
        hits = count * math.log(probability * rows / count) if count else 0.0
        misses = (rows - count) * math.log((1 - probability) * rows / (rows - count)) if count < rows else 0.0
        return hits + misses > plausible

    low, high = (_edge(is_plausible, count / rows, outer) for outer in (0.0, 1.0))
    return low, high


def ratio_evidence(
    count: npt.ArrayLike, rows: npt.ArrayLike, probability: npt.ArrayLike
) -> npt.NDArray[np.float64] | np.float64:
    """The logarithm of the martingale against a probability: the likelihood of a Beta mixture over that of the probability."""
    hits, misses = np.asarray(count, dtype=float), np.asarray(rows, dtype=float) - np.asarray(count, dtype=float)
    mixture = betaln(hits + PRIOR, misses + PRIOR) - betaln(PRIOR, PRIOR)
    return np.asarray(mixture - xlogy(hits, probability) - xlog1py(misses, -np.asarray(probability, dtype=float)))


def drifting_mean_interval(total: float, count: float, alpha: float) -> SequentialEstimate:
    """The average of the means of `count` observations in [0, 1] whose sum is `total`.

    Like `mean_interval` it holds at all checks simultaneously, but the mean may change over time, and it is wider.
    (Normal mixture of Robbins 1970 as in Howard, Ramdas, McAuliffe & Sekhon, Time-uniform, nonparametric,
    nonasymptotic confidence sequences, Annals of Statistics 49 (2021), section 3.2; with Hoeffding's variance of 1/4.)
    """
    if not count:
        return SequentialEstimate(0.5, 0.0, 1.0, 0)
    doubt = -2 * math.log(alpha)
    tuned = TUNED_FOR / 4 / (doubt + math.log(doubt) + 1)
    variance = count / 4 + tuned
    half_width = math.sqrt(variance * (math.log(variance / tuned) + doubt)) / count
    mean = total / count
    return SequentialEstimate(mean, max(mean - half_width, 0.0), min(mean + half_width, 1.0), round(count))


def mean_difference(
    ours: Sequence[float] | Numbers, theirs: Sequence[float] | Numbers, alpha: float
) -> SequentialEstimate:
    """The mean of `ours` minus the mean of `theirs`, two independent streams in [0, 1]; `n` is the shorter length.

    Each stream has an interval at `alpha`/2; by the union bound both hold with a probability of at least 1 - `alpha`.
    """
    one, other = mean_interval(ours, alpha / 2), mean_interval(theirs, alpha / 2)
    return SequentialEstimate(one.mean - other.mean, one.low - other.high, one.high - other.low, min(one.n, other.n))


def paired_mean_difference(
    ours: Sequence[float] | Numbers, theirs: Sequence[float] | Numbers, alpha: float
) -> SequentialEstimate:
    """The mean of `ours` minus `theirs` over pairs of values in [0, 1], by betting on the differences."""
    differences = _validated(ours) - _validated(theirs)
    if not differences.size:
        return SequentialEstimate(0.0, -1.0, 1.0, 0)
    low, high = _bounds(differences, alpha)
    mean = float(differences.mean())
    return SequentialEstimate(mean, min(low, mean), max(high, mean), differences.size)


def _validated(observations: Sequence[float] | Numbers) -> Numbers:
    values = np.asarray(observations, dtype=float)
    if values.size and not (values.min() >= 0 and values.max() <= 1):
        raise ValueError(f"observations must be within 0 and 1, got {values.min()} to {values.max()}")
    return values


def _bounds(differences: Numbers, alpha: float) -> tuple[float, float]:
    """Bounds of the mean of values in [-1, 1] by betting with fixed stakes, each one-sided at `alpha`/2."""

    def lower(values: Numbers) -> float:
        return _edge(lambda bound: p_value_above(values, bound) > alpha / 2, float(values.mean()), -1.0)

    return lower(differences), -lower(-differences)


def _edge(is_plausible: Callable[[float], bool], inner: float, outer: float) -> float:
    """From a plausible value towards `outer`, the first value that is not plausible, by bisection; `outer` if all are."""
    for _ in range(STEPS):
        middle = (outer + inner) / 2
        outer, inner = (outer, middle) if is_plausible(middle) else (middle, inner)
    return outer
