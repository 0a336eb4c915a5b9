"""What a champion's confidence says of its accuracy where no label does."""

from __future__ import annotations

from dataclasses import dataclass

from perpetune.policy.verdict import Interval, Score


@dataclass(frozen=True)
class EstimatedFall:
    """How far the accuracy that the champion's confidence implies has fallen below that on the reference.

    `fall` is reference minus window; `p_value` is one-sided, "the fall is more than `margin`",
    and below half of what the interval's level leaves exactly where the interval lies above the margin.
    """

    window: Score
    reference: Score
    fall: float
    interval: Interval
    margin: float
    p_value: float
    test: str
