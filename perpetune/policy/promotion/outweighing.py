"""Whether a gain on one holdout outweighs a loss on the other: one that is possible, or one that is likely."""

from __future__ import annotations

from math import hypot
from statistics import NormalDist

from perpetune.policy.verdict import Interval


def gain_outweighs_loss(difference: float, guard: Interval, gain: Interval, margin: float) -> bool:
    """Whether the lower bound of the gain is larger than the largest possible loss on the other holdout.

    `difference` and `guard` are the difference and interval on the holdout that guards, `gain` the interval on the other
    one. The observed loss must be within the margin. Both bounds hold together with 1 minus the sum of their errors
    (Bonferroni), so the mean of the two holdouts has improved. The false positive rate stays that of the gain test,
    which the gate requires too.
    """
    return difference > -margin and gain.low > max(0.0, -guard.low)


def p_of_mean_gain(gain: float, gain_error: float, guard: float, guard_error: float) -> float:
    """One-sided p-value of "the mean of both holdouts has improved", each counting alike.

    `gain` and `guard` are the differences on the two, with their standard errors; the holdouts share no row. 1 if nothing
    differs.
    """
    error = hypot(gain_error, guard_error)
    if not error:
        return float(gain + guard <= 0)
    return 1 - NormalDist().cdf((gain + guard) / error)
