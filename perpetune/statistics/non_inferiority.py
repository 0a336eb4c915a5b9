"""A paired test against a non-inferiority margin: is one system worse than another by more than the margin?"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from scipy.special import gammaln, xlogy

from perpetune.statistics.estimate import Floats
from perpetune.statistics.sequential.betting import p_value_above
from perpetune.statistics.units import are_rows, units_of

EXACT_ROWS = 150  # up to here the test is exact; beyond, the asymptotic score test keeps its level
NUISANCE_GRID = 60  # values of the nuisance parameter, the ratio of discordant rows


def inferiority_p_value(
    margin: float,
    a_scores: Sequence[float],
    b_scores: Sequence[float],
    groups: Sequence[str] | None = None,
    weights: Sequence[float] | None = None,
) -> float:
    """The one-sided p-value for "b is worse than a by more than `margin`", from scores in [0, 1] on the same rows.

    A small value shows inferiority. If all scores are 0 or 1, it is the score test of a paired difference (Tango,
    Statistics in Medicine 17 (1998) 891), up to `EXACT_ROWS` rows as an exact unconditional test (Hsueh, Liu & Chen,
    Biometrics 57 (2001) 478). For graded scores, and if rows of one of the `groups` are one observation or `weights`
    differ, it is by betting: valid for any distribution and size. The order of the rows does not matter.
    """
    differences = np.asarray(b_scores, dtype=np.float64) - np.asarray(a_scores, dtype=np.float64)
    if set(a_scores) | set(b_scores) <= {0.0, 1.0} and are_rows(groups, weights):
        return inferiority_p_value_of_counts(
            int((differences > 0).sum()), int((differences < 0).sum()), len(differences), margin
        )
    units = units_of(differences, groups, weights)
    return p_value_above(-units.means, margin, units.weights)


@lru_cache(maxsize=4096)
def inferiority_p_value_of_counts(better: int, worse: int, rows: int, margin: float) -> float:
    """The same from counts: of `rows`, only b is right on `better` and only a on `worse`."""
    seen = _score_statistic(np.array([float(better)]), np.array([float(worse)]), rows, margin)[0]
    if rows > EXACT_ROWS:
        return NormalDist().cdf(seen)
    ups, downs = (cells.astype(np.float64) for cells in np.indices((rows + 1, rows + 1)))
    possible = ups + downs <= rows
    ups, downs = ups[possible], downs[possible]
    as_bad = _score_statistic(ups, downs, rows, margin) <= seen + 1e-9
    return _max_probability(ups[as_bad], downs[as_bad], rows, margin)


def _score_statistic(better: Floats, worse: Floats, rows: int, margin: float) -> Floats:
    """The standardised difference under a difference of -margin, with the most likely discordance (Tango 1998)."""
    shift = -margin
    linear = -better - worse + (2 * rows - better + worse) * shift
    root = np.sqrt(np.maximum(0.0, linear**2 + 8 * rows * worse * shift * (1 - shift)))
    ratio = (root - linear) / (4 * rows)
    return np.asarray((better - worse - rows * shift) / np.sqrt(rows * (2 * ratio + shift * (1 - shift))))


def _max_probability(better: Floats, worse: Floats, rows: int, margin: float) -> float:
    """The largest probability of these tables over all discordance ratios under a difference of -margin."""
    rest = rows - better - worse
    ways = gammaln(rows + 1) - gammaln(better + 1) - gammaln(worse + 1) - gammaln(rest + 1)

    def chance(discordant: float) -> float:
        up, down = (discordant - margin) / 2, (discordant + margin) / 2
        logs = ways + xlogy(better, up) + xlogy(worse, down) + xlogy(rest, 1 - discordant)
        return float(np.exp(logs).sum())

    return min(1.0, max(chance(ratio) for ratio in np.linspace(margin, 1.0, NUISANCE_GRID)))
