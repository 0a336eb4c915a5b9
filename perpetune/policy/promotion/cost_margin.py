"""The margin of scores by cost (`promote.costs`)."""

from __future__ import annotations

LEAST_LOSS = 0.001  # of the largest cost: a smaller one is not worth finding, however little mistakes cost


def margin_by_cost(margin: float, score: float) -> float:
    """The margin, but at most what the mistakes of a system with this mean score cost: a loss may not double the cost.

    A dear mistake is rare, and three points of the largest cost may be many times all that mistakes cost today.
    """
    return min(margin, max(1 - score, LEAST_LOSS))
