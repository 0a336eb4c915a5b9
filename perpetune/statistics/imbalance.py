"""Class imbalance, as training (class weights) and the promotion gate (balanced accuracy) define it."""

from __future__ import annotations

from collections.abc import Mapping


def is_imbalanced(counts: Mapping[str, int]) -> bool:
    """Whether the rarest label has less than half of the rows of a uniform distribution.

    A fixed frequency would call 27 labels of 3.7% each rare.
    """
    return len(counts) > 1 and min(counts.values()) * len(counts) < sum(counts.values()) / 2
