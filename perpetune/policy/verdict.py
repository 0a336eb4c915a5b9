"""Verdicts: outcome, reasons, rule; and the scores and intervals in their evidence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Outcome = Literal[
    "promote",
    "reject",
    "retrain",
    "keep",
    "mix shift",
    "confirming",
    "cooling down",
    "over budget",
    "collect more labels",
    "ask for labels",
    "abort",
    "continue",
    "roll back",
]


@dataclass(frozen=True)
class Interval:
    """A closed confidence interval and its level (0.95 is 95%).

    Raises ValueError if the ends are swapped or NaN.
    """

    low: float
    high: float
    level: float = 0.95

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise ValueError(f"the low end of an interval must not exceed the high end: {self.low} to {self.high}")


@dataclass(frozen=True)
class Score:
    """The mean score (0 to 1) of `rows` rows, with its interval."""

    mean: float
    interval: Interval
    rows: int


@dataclass(frozen=True)
class Verdict:
    """A decision, with reasons of one sentence each, the decisive one first, and the rule that was applied."""

    outcome: Outcome
    reasons: tuple[str, ...]
    rule: str
