"""A budget of false alarms, so that a test that is repeated for ever keeps a stated rate.

Each test at level a raises a false alarm with a probability of at most a, and expectations add up whatever depends on
what: overlapping windows, one reference for all. So if the levels of all tests of a year sum to 1, at most one false alarm
a year is expected. The budget is alpha spending (Lan & DeMets, Biometrika 70 (1983) 659) without an end: it fills evenly
with time, and each test spends a fixed part of what is saved.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

MOST_SAVED = 1 / 12  # of a year's alarms: the budget of a month, which is also what it begins with
PART = 30  # a test spends one part in so many of what is saved: with one test a day it spends as fast as it fills
MOST_LEVEL = 0.05  # of a test, whatever is saved: with more it would find what is not there
LEAST_LEVEL = 1 / 2000  # of a test: with less it waits, because it would find little
_YEAR_SECONDS = 365 * 86_400


@dataclass(frozen=True)
class AlarmBudget:
    """What is saved at a time, in expected false alarms; `time` is None before the first test."""

    saved: float = 0.0
    time: datetime | None = None


def refilled(budget: AlarmBudget, now: datetime, per_year: float) -> AlarmBudget:
    """The budget now, if `per_year` false alarms a year are allowed."""
    most = per_year * MOST_SAVED
    if budget.time is None:
        return AlarmBudget(most, now)
    years = max((now - budget.time).total_seconds(), 0.0) / _YEAR_SECONDS
    return AlarmBudget(min(budget.saved + per_year * years, most), max(now, budget.time))


def affordable(budget: AlarmBudget, per_year: float) -> float | None:
    """The level of a test now; None if the budget has to fill first."""
    level = budget.saved / PART
    return min(level, MOST_LEVEL) if level >= least_level(per_year) else None


def least_level(per_year: float) -> float:
    """The level below which a test waits."""
    return LEAST_LEVEL * min(per_year, 1.0)


def spent(budget: AlarmBudget, level: float) -> AlarmBudget:
    """The budget after a test at this level."""
    return replace(budget, saved=budget.saved - level)
