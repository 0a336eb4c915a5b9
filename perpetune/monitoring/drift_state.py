"""What drift tests keep between checks, as a tag of the version: the last result, and the budget, which the next one inherits."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from pydantic import TypeAdapter, ValidationError

from perpetune.policy.retraining import DriftEvidence
from perpetune.statistics.sequential.alarm_budget import AlarmBudget, affordable, least_level, refilled, spent

DRIFT = "perpetune.drift"


@dataclass(frozen=True)
class DriftState:
    """The budget of false alarms, and what the last test found; None before the first."""

    budget: AlarmBudget = field(default_factory=AlarmBudget)
    last: DriftEvidence | None = None


_JSON = TypeAdapter(DriftState)


def to_text(state: DriftState) -> str:
    """The state as compact JSON."""
    return _JSON.dump_json(state).decode()


def from_text(text: str | None) -> DriftState:
    """Read JSON that `to_text` wrote; a new state if there is none, or it is of another release."""
    try:
        return _JSON.validate_json(text or "")
    except ValidationError:
        return DriftState()


def level_of_test(state: DriftState, now: datetime, per_year: float, new_rows: int, min_rows: int) -> float | None:
    """The level of a test now. None if the budget has to fill first, or fewer than `min_rows` requests are new.

    The first test of a version has no earlier result to repeat, and takes place at the least level there is.
    """
    level = affordable(refilled(state.budget, now, per_year), per_year)
    if state.last is None:
        return least_level(per_year) if level is None else level
    return None if new_rows < min_rows else level


def inherited(states: Iterable[DriftState]) -> DriftState:
    """The state of a new champion: the budget of the versions before it, which is one for all, and no result."""
    budgets = [(state.budget.time, state.budget) for state in states]
    known = [(time, budget) for time, budget in budgets if time is not None]
    return DriftState(budget=max(known, key=lambda each: each[0])[1]) if known else DriftState()


def after_test(state: DriftState, now: datetime, per_year: float, level: float, found: DriftEvidence) -> DriftState:
    """The state after a test at this level; one that had too few rows costs nothing."""
    if not found.judged:
        return state
    return DriftState(spent(refilled(state.budget, now, per_year), level), found)
