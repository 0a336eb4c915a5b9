"""When labels are imbalanced: for the weights of training, and for the metric of the gate."""

from __future__ import annotations

from collections.abc import Mapping


def is_imbalanced(counts: Mapping[str, int]) -> bool:
    """Whether the rarest label has less than half of the rows that it would have if all had the same number.

    A share alone would call 27 labels of 3.7% each rare.
    """
    return len(counts) > 1 and min(counts.values()) * len(counts) < sum(counts.values()) / 2
