"""Bounds of a mean difference from labels of disagreements that hold at all checks, in whatever order labels come.

The mean difference is the ratio of differing rows, known from all of them, times the mean on those that are labelled. Each
factor has bounds that hold at all times together with the other's (Bonferroni). They depend on sums alone: neither the order
of the labels nor their division into checks matters.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import betaln, xlog1py, xlogy

from perpetune.statistics.betting import mean_bounds
from perpetune.statistics.disagreements import FOR_RATIO, Disagreements

STEPS = 50  # of the bisection for an end of the interval


def anytime_bounds(found: Disagreements, alpha: float) -> tuple[float, float]:
    """Bounds of the mean of b - a over all rows; the mean is ever outside with a probability of at most `alpha`.

    Without labels the difference is at most the ratio of differing rows, to either side.
    """
    least, most = anytime_ratio(found.differing, found.rows, FOR_RATIO * alpha)
    if not found.differences:
        return -most, most
    low, high = mean_bounds(np.asarray(found.differences, dtype=np.float64), (1 - FOR_RATIO) * alpha)
    return low * (most if low < 0 else least), high * (most if high > 0 else least)


def anytime_ratio(count: int, rows: int, alpha: float) -> tuple[float, float]:
    """Bounds of a probability after `count` of `rows` independent events, that hold at all times together.

    The likelihood of a Beta(1/2, 1/2) mixture against that of the true probability is a martingale that starts at 1; the
    bounds hold the probabilities against which it is below 1/alpha (Robbins, Annals of Mathematical Statistics 1970;41:1397).
    """
    if not rows:
        return 0.0, 1.0
    mixture = float(betaln(count + 0.5, rows - count + 0.5) - betaln(0.5, 0.5))

    def rejected(probability: float) -> bool:
        likelihood = float(xlogy(count, probability) + xlog1py(rows - count, -probability))
        return mixture - likelihood >= -math.log(alpha)

    estimate = count / rows
    ends = []
    for end in (0.0, 1.0):
        outer, inner = end, estimate
        if rejected(outer):
            for _ in range(STEPS):
                middle = (outer + inner) / 2
                outer, inner = (middle, inner) if rejected(middle) else (outer, middle)
        ends.append(outer)
    return ends[0], ends[1]
