"""The cost of answers beside their accuracy, in the evidence of a promotion; it decides nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from perpetune.policy.verdict import Interval
from perpetune.policy.wording import significant


@dataclass(frozen=True)
class AnswerCost:
    """US dollars for 1,000 requests and for 1,000 right answers with a system, and its mean score from 0 to 1.

    `right_between` is the interval of the cost of right answers. None if the score is not known, or no answer is right.
    """

    dollars_per_1000: float
    score: float | None
    dollars_per_1000_right: float | None
    right_between: Interval | None


def cost_table(costs: Mapping[str, Mapping[str, Any]]) -> str:
    """The costs of a decision record as a Markdown table; "" if there are none."""
    if not costs:
        return ""
    lines = [f"| {name} | {_row(cost)} |" for name, cost in costs.items()]
    header = "| system | score | $ per 1,000 requests | $ per 1,000 right answers |\n| --- | --- | --- | --- |"
    return "\n".join((header, *lines))


def _row(cost: Mapping[str, Any]) -> str:
    score, right = cost["score"], cost["dollars_per_1000_right"]
    cells = ("" if score is None else f"{100 * score:.1f}%", significant(cost["dollars_per_1000"]))
    return " | ".join((*cells, "" if right is None else significant(right)))
