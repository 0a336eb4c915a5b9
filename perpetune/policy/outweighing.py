"""When a gain on recent traffic opens the gate that too few frozen rows keep shut."""

from __future__ import annotations

from perpetune.policy.verdict import Interval


def gain_outweighs_loss(difference: float, guard: Interval, gain: Interval, margin: float) -> bool:
    """Whether the gain, at its least, is more than the guarding holdout may have lost, at its most.

    `difference` and `guard` are the guarding holdout's, `gain` the interval on the other one. The loss that is seen must
    lie within the margin. Both low ends hold together at least with 1 less both their errors (Bonferroni), so the mean of
    the two holdouts, each counting alike, is better beyond doubt. A challenger that is no better passes no more often
    than its gain is shown by chance, since the gate asks for that too.
    """
    return difference > -margin and gain.low > max(0.0, -guard.low)
