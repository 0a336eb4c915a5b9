"""What the drift tests of one version keep between checks, as a tag of the version: their budget and the last result."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from pydantic import TypeAdapter, ValidationError

from perpetune.policy.retraining import DriftEvidence
from perpetune.statistics.alarm_budget import AlarmBudget, affordable, refilled, spent

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
    """The level of a test now. None if the budget has to fill first, or fewer than `min_rows` requests are new."""
    if state.last is not None and new_rows < min_rows:
        return None
    return affordable(refilled(state.budget, now, per_year), per_year)


def after_test(state: DriftState, now: datetime, per_year: float, level: float, found: DriftEvidence) -> DriftState:
    """The state after a test at this level; one that had too few rows costs nothing."""
    if not found.judged:
        return state
    return DriftState(spent(refilled(state.budget, now, per_year), level), found)
