"""The test of whether a gain on one holdout outweighs a possible loss on the other."""

from __future__ import annotations

from perpetune.policy.verdict import Interval


def gain_outweighs_loss(difference: float, guard: Interval, gain: Interval, margin: float) -> bool:
    """Whether the lower bound of the gain is larger than the largest possible loss on the other holdout.

    `difference` and `guard` are the difference and interval on the holdout that guards, `gain` the interval on the other
    one. The observed loss must be within the margin. Both bounds hold together with 1 minus the sum of their errors
    (Bonferroni), so the mean of the two holdouts has improved. The false positive rate stays that of the gain test,
    which the gate requires too.
    """
    return difference > -margin and gain.low > max(0.0, -guard.low)
