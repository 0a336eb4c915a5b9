"""Evidence on accuracy without labels, estimated from the champion's confidence."""

from __future__ import annotations

from dataclasses import dataclass

from perpetune.policy.verdict import Interval, Score


@dataclass(frozen=True)
class EstimatedFall:
    """The fall of the estimated accuracy from the reference to the window.

    `fall` is reference minus window. `p_value` is one-sided for "the fall is more than `margin`"; it is below half of
    1 - level exactly if the interval lies above the margin.
    """

    window: Score
    reference: Score
    fall: float
    interval: Interval
    margin: float
    p_value: float
    test: str
