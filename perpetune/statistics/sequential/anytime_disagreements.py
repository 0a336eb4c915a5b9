"""Bounds of a mean difference from labels of disagreements that hold at all checks, in whatever order labels come.

The mean difference is the ratio of differing rows, known from all of them, times the mean on those that are labelled. Each
factor has bounds that hold at all times together with the other's (Bonferroni). They depend on sums alone: neither the order
of the labels nor their division into checks matters.
"""

from __future__ import annotations

import numpy as np

from perpetune.statistics.disagreements import FOR_RATIO, Disagreements
from perpetune.statistics.sequential.betting import mean_bounds
from perpetune.statistics.sequential.confidence_sequences import ratio_bounds


def anytime_bounds(found: Disagreements, alpha: float) -> tuple[float, float]:
    """Bounds of the mean of b - a over all rows; the mean is ever outside with a probability of at most `alpha`.

    Without labels the difference is at most the ratio of differing rows, to either side.
    """
    least, most = ratio_bounds(found.differing, found.rows, FOR_RATIO * alpha)
    if not found.differences:
        return -most, most
    low, high = mean_bounds(np.asarray(found.differences, dtype=np.float64), (1 - FOR_RATIO) * alpha)
    return low * (most if low < 0 else least), high * (most if high > 0 else least)
