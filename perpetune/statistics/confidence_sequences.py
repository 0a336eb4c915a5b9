"""Intervals for means that may be looked at as often as one likes: confidence sequences by betting.

A mean is doubted by betting against it, each stake set before the observation is seen. Where a mean is the true one
no bettor is likely to grow rich: the chance that the capital ever reaches 1/alpha is at most alpha (Ville's
inequality). The means against which nobody has grown rich so far are the interval, at every look at once. The stakes
are the "hedged capital" with predictable plug-in bets of Waudby-Smith & Ramdas, Estimating means of bounded random
variables by betting, JRSS-B 86 (2024), section 4.4. Observations must come in an order that no later look changes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]

GRID = 1000  # means tried: every thousandth
MAX_STAKE = 0.5  # no bet risks more than half of the capital
TUNED_FOR = 200  # observations that the interval of a mean which may change is narrowest for
BLOCK = 16  # observations whose factors are multiplied before a logarithm is taken


@dataclass(frozen=True)
class SequentialEstimate:
    """The mean of `n` observations and bounds that hold at all looks at once."""

    mean: float
    low: float
    high: float
    n: int


def mean_interval(observations: Sequence[float] | Numbers, alpha: float) -> SequentialEstimate:
    """The mean of observations in [0, 1], in the order they came; bounds are rounded outwards to thousandths.

    The true mean lies outside the bounds of any look ever with a probability of at most `alpha`. Raises ValueError
    where an observation is outside [0, 1].
    """
    seen = _checked(observations)
    if not seen.size:
        return SequentialEstimate(0.5, 0.0, 1.0, 0)
    means = np.linspace(0.0, 1.0, GRID + 1)
    capital = _log_capital(seen, means, alpha)
    alive = np.flatnonzero(capital < -math.log(alpha))
    first, last = (alive[0], alive[-1]) if alive.size else (capital.argmin(), capital.argmin())
    mean = float(seen.mean())
    low, high = float(means[max(first - 1, 0)]), float(means[min(last + 1, GRID)])
    return SequentialEstimate(mean, min(low, mean), max(high, mean), seen.size)


def drifting_mean_interval(total: float, count: int, alpha: float) -> SequentialEstimate:
    """The average of the means that `count` observations in [0, 1] had, of which only the `total` is known.

    It holds at all looks at once as `mean_interval` does, and also where the mean has changed meanwhile, which betting
    against one mean does not. It is wider for that. (The normal mixture of Robbins 1970 as in Howard, Ramdas,
    McAuliffe & Sekhon, Time-uniform, nonparametric, nonasymptotic confidence sequences, Annals of Statistics 49 (2021),
    section 3.2; with Hoeffding's variance of 1/4.)
    """
    if not count:
        return SequentialEstimate(0.5, 0.0, 1.0, 0)
    doubt = -2 * math.log(alpha)
    tuned = TUNED_FOR / 4 / (doubt + math.log(doubt) + 1)
    variance = count / 4 + tuned
    reach = math.sqrt(variance * (math.log(variance / tuned) + doubt)) / count
    mean = total / count
    return SequentialEstimate(mean, max(mean - reach, 0.0), min(mean + reach, 1.0), count)


def mean_difference(
    ours: Sequence[float] | Numbers, theirs: Sequence[float] | Numbers, alpha: float
) -> SequentialEstimate:
    """The mean of `ours` minus that of `theirs`, two independent streams in [0, 1]; `n` counts the shorter one.

    Each stream has an interval at `alpha`/2: both hold with a probability of at least 1 - `alpha` (union bound).
    """
    one, other = mean_interval(ours, alpha / 2), mean_interval(theirs, alpha / 2)
    return SequentialEstimate(one.mean - other.mean, one.low - other.high, one.high - other.low, min(one.n, other.n))


def paired_mean_difference(
    ours: Sequence[float] | Numbers, theirs: Sequence[float] | Numbers, alpha: float
) -> SequentialEstimate:
    """The mean difference of pairs, each of two values in [0, 1] for the same thing."""
    mapped = (np.asarray(ours, dtype=float) - np.asarray(theirs, dtype=float) + 1) / 2
    found = mean_interval(mapped, alpha)
    return SequentialEstimate(2 * found.mean - 1, 2 * found.low - 1, 2 * found.high - 1, found.n)


def log_capital_path(observations: Sequence[float] | Numbers, mean: float, alpha: float) -> Numbers:
    """The logarithm of the capital won against one mean, after each observation.

    A look rejects the mean where this is at least -log(alpha).
    """
    seen = _checked(observations)
    stakes = _stakes(seen, alpha)
    up, down = _factors(seen, stakes, np.array([mean]))
    paths = [np.cumsum(np.log(factors[:, 0])) for factors in (up, down)]
    return np.asarray(np.maximum(*paths) - math.log(2))


def _checked(observations: Sequence[float] | Numbers) -> Numbers:
    seen = np.asarray(observations, dtype=float)
    if seen.size and not (seen.min() >= 0 and seen.max() <= 1):
        raise ValueError("observations lie within 0 and 1")
    return seen


def _log_capital(seen: Numbers, means: Numbers, alpha: float) -> Numbers:
    """After all observations, against each mean: the richer of the two who bet that the truth is above, or below.

    Each began with half of the capital.
    """
    stakes = _stakes(seen, alpha)
    won_up, won_down = np.zeros(means.size), np.zeros(means.size)
    for start in range(0, seen.size, BLOCK):
        some = slice(start, start + BLOCK)
        up, down = _factors(seen[some], stakes[some], means)
        won_up += np.log(up.prod(axis=0))
        won_down += np.log(down.prod(axis=0))
    return np.asarray(np.maximum(won_up, won_down) - math.log(2))


def _stakes(seen: Numbers, alpha: float) -> Numbers:
    """Each stake knows only the observations before its own: more where they vary less."""
    count = np.arange(1, seen.size + 1)
    running_mean = (0.5 + np.cumsum(seen)) / (count + 1)
    variance = (0.25 + np.cumsum((seen - running_mean) ** 2)) / (count + 1)
    before = np.concatenate([[0.25], variance[:-1]])[: seen.size]
    return np.asarray(np.sqrt(2 * math.log(2 / alpha) / (before * count * np.log(count + 1))))


def _factors(seen: Numbers, stakes: Numbers, means: Numbers) -> tuple[Numbers, Numbers]:
    """What a unit of capital becomes, observations x means, betting that the truth is above the mean, and below."""
    gap = seen[:, None] - means
    with np.errstate(divide="ignore"):
        up: Any = 1 + np.minimum(stakes[:, None], MAX_STAKE / means) * gap
        down: Any = 1 - np.minimum(stakes[:, None], MAX_STAKE / (1 - means)) * gap
    return up, down
