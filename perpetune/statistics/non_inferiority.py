"""Whether one system is worse than another by more than a margin, on the same rows, however few they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from scipy.special import gammaln, xlogy
from scipy.stats import norm

from perpetune.statistics.estimate import Floats

EXACT_ROWS = 150  # up to here all tables are enumerated; beyond, the score test keeps its level
NUISANCE_GRID = 60  # of discordant rows, tried for the worst case
STAKES = (0.05, 0.1, 0.2, 0.4, 0.6, 0.8)  # shares of the most that can be staked


def inferiority_p_value(margin: float, a_scores: Sequence[float], b_scores: Sequence[float]) -> float:
    """The one-sided p-value of "b is worse than a by more than `margin`"; scores lie in [0, 1], rows are the same.

    Where all scores are 0 or 1: the score test of a paired difference (Tango, Statistics in Medicine 17 (1998) 891),
    up to `EXACT_ROWS` rows as an exact unconditional test (Hsueh, Liu & Chen, Biometrics 57 (2001) 478). Otherwise
    a bet on each row's difference, which holds for whatever distribution at any size (Waudby-Smith & Ramdas, JRSS-B 86
    (2024)): what a unit has become is a number whose inverse is a p-value. The order of the rows is irrelevant.
    """
    differences = np.asarray(b_scores, dtype=np.float64) - np.asarray(a_scores, dtype=np.float64)
    if set(a_scores) | set(b_scores) <= {0.0, 1.0}:
        return inferiority_p_value_of_counts(
            int((differences > 0).sum()), int((differences < 0).sum()), len(differences), margin
        )
    return _by_betting(np.sort(differences), margin)


@lru_cache(maxsize=4096)
def inferiority_p_value_of_counts(better: int, worse: int, rows: int, margin: float) -> float:
    """The same from counts: of `rows`, b alone is right on `better` and a alone on `worse`."""
    seen = _score_statistic(np.array([float(better)]), np.array([float(worse)]), rows, margin)[0]
    if rows > EXACT_ROWS:
        return float(norm.cdf(seen))
    ups, downs = (cells.astype(np.float64) for cells in np.indices((rows + 1, rows + 1)))
    possible = ups + downs <= rows
    ups, downs = ups[possible], downs[possible]
    as_bad = _score_statistic(ups, downs, rows, margin) <= seen + 1e-9
    return _max_probability(ups[as_bad], downs[as_bad], rows, margin)


def _score_statistic(better: Floats, worse: Floats, rows: int, margin: float) -> Floats:
    """The standardised difference where it is -margin, with the discordance that fits that best (Tango 1998)."""
    shift = -margin
    linear = -better - worse + (2 * rows - better + worse) * shift
    root = np.sqrt(np.maximum(0.0, linear**2 + 8 * rows * worse * shift * (1 - shift)))
    share = (root - linear) / (4 * rows)
    return np.asarray((better - worse - rows * shift) / np.sqrt(rows * (2 * share + shift * (1 - shift))))


def _max_probability(better: Floats, worse: Floats, rows: int, margin: float) -> float:
    """Of these tables together, over all shares of discordant rows that a difference of -margin allows."""
    rest = rows - better - worse
    ways = gammaln(rows + 1) - gammaln(better + 1) - gammaln(worse + 1) - gammaln(rest + 1)

    def chance(discordant: float) -> float:
        up, down = (discordant - margin) / 2, (discordant + margin) / 2
        logs = ways + xlogy(better, up) + xlogy(worse, down) + xlogy(rest, 1 - discordant)
        return float(np.exp(logs).sum())

    return min(1.0, max(chance(share) for share in np.linspace(margin, 1.0, NUISANCE_GRID)))


def _by_betting(differences: Floats, margin: float) -> float:
    """Stakes on "worse than -margin"; a mixture of them, so that none need be chosen after the rows are seen."""
    most = 1 / (1 + margin)
    won = [float(np.log1p(stake * most * (-margin - differences)).sum()) for stake in STAKES]
    return min(1.0, math.exp(math.log(len(STAKES)) - float(np.logaddexp.reduce(won))))
