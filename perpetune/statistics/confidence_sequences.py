"""Confidence sequences by betting: intervals of a mean that stay valid however often they are checked.

Each candidate mean is tested by betting against it; every stake is set before the next observation is known. Against
the true mean the capital ever reaches 1/alpha with a probability of at most alpha (Ville's inequality). The interval
holds the means against which the capital has stayed below 1/alpha. The stakes are the "hedged capital" with
predictable plug-in bets of Waudby-Smith & Ramdas, Estimating means of bounded random variables by betting, JRSS-B 86
(2024), section 4.4. Later checks may only append observations, not reorder them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]

GRID = 1000  # candidate means: every thousandth
MAX_STAKE = 0.5  # of the capital, in one bet
TUNED_FOR = 200  # observations: `drifting_mean_interval` is narrowest there
BLOCK = 16  # observations multiplied before taking a logarithm


@dataclass(frozen=True)
class SequentialEstimate:
    """The mean of `n` observations with bounds that hold at all checks simultaneously."""

    mean: float
    low: float
    high: float
    n: int


def mean_interval(observations: Sequence[float] | Numbers, alpha: float) -> SequentialEstimate:
    """The mean of observations in [0, 1], in order of arrival, with bounds rounded outwards to thousandths.

    The true mean is ever outside the bounds with a probability of at most `alpha`, over all checks together. Raises
    ValueError if an observation is outside [0, 1].
    """
    values = _validated(observations)
    if not values.size:
        return SequentialEstimate(0.5, 0.0, 1.0, 0)
    means = np.linspace(0.0, 1.0, GRID + 1)
    capital = _log_capital(values, means, alpha)
    plausible = np.flatnonzero(capital < -math.log(alpha))
    first, last = (plausible[0], plausible[-1]) if plausible.size else (capital.argmin(), capital.argmin())
    mean = float(values.mean())
    low, high = float(means[max(first - 1, 0)]), float(means[min(last + 1, GRID)])
    return SequentialEstimate(mean, min(low, mean), max(high, mean), values.size)


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
    """The mean of `ours` minus `theirs` over pairs of values in [0, 1]."""
    mapped = (np.asarray(ours, dtype=float) - np.asarray(theirs, dtype=float) + 1) / 2
    found = mean_interval(mapped, alpha)
    return SequentialEstimate(2 * found.mean - 1, 2 * found.low - 1, 2 * found.high - 1, found.n)


def _validated(observations: Sequence[float] | Numbers) -> Numbers:
    values = np.asarray(observations, dtype=float)
    if values.size and not (values.min() >= 0 and values.max() <= 1):
        raise ValueError(f"observations must be within 0 and 1, got {values.min()} to {values.max()}")
    return values


def _log_capital(values: Numbers, means: Numbers, alpha: float) -> Numbers:
    """The capital after all observations, for each mean: half bets that the truth is above it, half below.

    The larger half counts.
    """
    stakes = stakes_on(values, alpha)
    won_up, won_down = np.zeros(means.size), np.zeros(means.size)
    for start in range(0, values.size, BLOCK):
        some = slice(start, start + BLOCK)
        up, down = growth_factors(values[some], stakes[some], means)
        won_up += np.log(up.prod(axis=0))
        won_down += np.log(down.prod(axis=0))
    return np.asarray(np.maximum(won_up, won_down) - math.log(2))


def stakes_on(values: Numbers, alpha: float) -> Numbers:
    """The stake on each observation, from those before it only; larger if they vary less."""
    count = np.arange(1, values.size + 1)
    running_mean = (0.5 + np.cumsum(values)) / (count + 1)
    variance = (0.25 + np.cumsum((values - running_mean) ** 2)) / (count + 1)
    before = np.concatenate([[0.25], variance[:-1]])[: values.size]
    return np.asarray(np.sqrt(2 * math.log(2 / alpha) / (before * count * np.log(count + 1))))


def growth_factors(values: Numbers, stakes: Numbers, means: Numbers) -> tuple[Numbers, Numbers]:
    """The factor by which capital grows, (observations, means), for bets above the mean and below it."""
    gap = values[:, None] - means
    with np.errstate(divide="ignore"):
        up: Any = 1 + np.minimum(stakes[:, None], MAX_STAKE / means) * gap
        down: Any = 1 - np.minimum(stakes[:, None], MAX_STAKE / (1 - means)) * gap
    return up, down
