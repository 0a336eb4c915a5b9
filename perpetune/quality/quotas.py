"""How many rows of each label a budget allows."""

from __future__ import annotations

from collections.abc import Mapping


def balanced_quotas(counts: Mapping[str, int], budget: int) -> dict[str, int]:
    """As even as the rows allow: labels with fewer rows than an even share keep all, and the others share the rest.

    What does not divide goes to the labels with most rows. No quota is above the label's count.
    """
    quotas: dict[str, int] = {}
    left = budget
    by_size = sorted(counts, key=lambda label: (counts[label], label))
    for place, label in enumerate(by_size):
        quotas[label] = min(counts[label], left // (len(by_size) - place))
        left -= quotas[label]
    return quotas
