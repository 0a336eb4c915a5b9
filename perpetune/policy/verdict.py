"""What every verdict is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Outcome = Literal[
    "promote",
    "reject",
    "retrain",
    "keep",
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
    """A confidence interval, both ends within it, and its level (0.95 is 95%).

    Raises ValueError where the ends are swapped or not numbers.
    """

    low: float
    high: float
    level: float = 0.95

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise ValueError(f"an interval runs from its low end to its high end, not from {self.low} to {self.high}")


@dataclass(frozen=True)
class Score:
    """A mean score of `rows` rows."""

    mean: float
    interval: Interval
    rows: int


@dataclass(frozen=True)
class Verdict:
    """What was decided. The first reason is the decisive one; each is one sentence."""

    outcome: Outcome
    reasons: tuple[str, ...]
    rule: str
