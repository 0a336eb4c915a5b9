"""Tests and intervals of a mean by betting: valid for any distribution on a known range, at any sample size.

Capital is staked on "the mean is above the bound"; if it is not, the expected capital stays at 1 or below, so that its
inverse is a p-value (Markov's inequality; Waudby-Smith & Ramdas, Estimating means of bounded random variables by betting,
JRSS-B 86 (2024)). The stakes are a fixed mixture: the order of the rows does not matter.
"""

from __future__ import annotations

import math

import numpy as np

from perpetune.statistics.estimate import Floats

STAKES = (0.1, 0.2, 0.4, 0.6, 0.8, 0.95)  # as fractions of the largest possible stake
GRID = 2000  # candidate means between -1 and 1: every thousandth
FINER = 16  # candidates within the step in which the bound lies


def p_value_above(differences: Floats, bound: float, weights: Floats | None = None) -> float:
    """The one-sided p-value of "the (weighted) mean of values in [-1, 1] is above `bound`"; 1 if there are none."""
    return float(np.exp(np.minimum(0.0, -log_capital(differences, np.array([bound]), weights)))[0])


def mean_bounds(differences: Floats, alpha: float, weights: Floats | None = None) -> tuple[float, float]:
    """Bounds of the mean of values in [-1, 1], each one-sided at `alpha`/2 and rounded outwards to 1/16 of a thousandth.

    Margins of what mistakes cost may be thousandths.
    """
    return _lower(differences, alpha / 2, weights), -_lower(-differences, alpha / 2, weights)


def equivalent_level(alpha: float) -> float:
    """The level of a normal test that needs about as many rows as betting does at `alpha`.

    Betting at the best stake crosses 1/alpha at sqrt(-2 log alpha) standard errors, and the upper tail of a normal
    variable at z is erfc(z / sqrt 2) / 2.
    """
    return 0.5 * math.erfc(math.sqrt(-math.log(alpha)))


def _lower(differences: Floats, alpha: float, weights: Floats | None) -> float:
    """The largest mean that the values are shown to be above."""
    candidates = np.linspace(-1.0, 1.0, GRID + 1)[1:]
    shown = candidates[log_capital(differences, candidates, weights) > -math.log(alpha)]
    if not shown.size:
        return -1.0
    finer = shown[-1] + 2 / GRID * np.arange(FINER) / FINER
    return float(finer[log_capital(differences, finer, weights) > -math.log(alpha)].max(initial=shown[-1]))


def log_capital(differences: Floats, bounds: Floats, weights: Floats | None) -> Floats:
    """The logarithm of the final capital against each bound; a row's stake is in proportion to its weight."""
    shares = np.ones_like(differences) if weights is None or not weights.size else weights / weights.max()
    rows, counts = np.unique(np.column_stack([differences, shares]), axis=0, return_counts=True)
    gaps = rows[:, 1:] * (rows[:, :1] - bounds) / (1 + bounds)
    won = [(counts[:, None] * np.log1p(stake * gaps)).sum(axis=0) for stake in STAKES]
    return np.asarray(np.logaddexp.reduce(won, axis=0) - math.log(len(STAKES)))
