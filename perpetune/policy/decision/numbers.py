"""How the numbers of a decision record are written in one line; a number that is missing or not finite is left out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

WIDE = 0.05  # an interval at least so wide is told in whole points
USUAL_LEVEL = 0.95

Evidence = Mapping[str, Any]


def score_in(metric: str, points: str) -> str:
    """A score in points of a hundred, as what it is a score of."""
    if metric == "accuracy":
        return f"{points}% right"
    return f"{metric.replace('_', ' ') or 'score'} {points}"


def score(measured: Evidence, metric: str) -> str | None:
    mean, found = number(measured, "mean"), measured.get("interval")
    if mean is None:
        return None
    return f"{score_in(metric, f'{100 * mean:.1f}')}{_within(found, text(measured, 'rows'), short=True)}"


def percent(measured: Evidence, value: object) -> str | None:
    if not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return f"{100 * value:.1f}%{_within(measured.get('interval'), text(measured, 'rows'), short=True)}"


def difference(compared: Evidence, rows: str | None = None) -> str | None:
    """With its interval; `rows` are those of the record if they are not given."""
    value = number(compared, "difference")
    return (
        None
        if value is None
        else f"{_points(value, 1):+.1f} points{_within(compared.get('interval'), rows or text(compared, 'rows'))}"
    )


def _within(found: object, rows: str | None, *, short: bool = False) -> str:
    """The interval and the rows in brackets, in points of a hundred; "" if the record has neither."""
    told = []
    if (both := ends(found)) is not None:
        low, high = both
        digits = 0 if short and high - low >= WIDE else 1
        told.append(f"{_points(low, digits):.{digits}f} to {_points(high, digits):.{digits}f}{_level(found)}")
    if rows:
        told.append(f"n={rows}")
    return f" ({', '.join(told)})" if told else ""


def ends(interval: object) -> tuple[float, float] | None:
    """The low and the high end; None if one is missing."""
    if not isinstance(interval, Mapping):
        return None
    low, high = number(interval, "low"), number(interval, "high")
    return None if low is None or high is None else (low, high)


def _level(interval: object) -> str:
    level = number(interval, "level") if isinstance(interval, Mapping) else None
    return "" if level in (None, USUAL_LEVEL) else f" at {100 * level:.3g}%"


def _points(value: float, digits: int) -> float:
    """In points of a hundred, and no minus before a zero."""
    return round(100 * value, digits) + 0.0


def part(evidence: Evidence, name: str) -> Evidence:
    found = evidence.get(name)
    return found if isinstance(found, Mapping) else {}


def number(part: Evidence, name: str) -> float | None:
    """None if there is none, and if it is not finite."""
    value = part.get(name)
    return value if isinstance(value, int | float) and math.isfinite(value) else None


def count(part: Evidence, name: str) -> int | None:
    value = part.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def text(part: Evidence, name: str) -> str | None:
    """A word or a whole number; None if there is none."""
    value = part.get(name)
    return value if isinstance(value, str) and value else None if count(part, name) is None else str(value)
