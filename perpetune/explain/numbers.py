"""The numbers of a decision record's evidence, of any kind: measurements first, then other facts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from perpetune.policy.wording import significant

# Fields of an estimate's value. The first are shown in percentage points.
PERCENT_VALUES = {"difference": "difference", "drop": "drop", "mean": "score"}
VALUES = (*PERCENT_VALUES, "value")
LEAST_PLAIN = 1e-6  # smaller numbers have an exponent
INTERVAL = {"low", "high", "level"}
SUBJECTS = {
    "frozen": "frozen holdout",
    "recent": "recent holdout",
    "quality": "quality on trial",
    "errors": "errors on trial",
    "slow": "slow answers on trial",
    "window": "labelled window",
    "reference": "reference",
    "decay": "decay",
    "lead": "challenger minus this",
    "gate": "vs serving",
    "balanced": "balanced accuracy",
    "recalls": "recall",
    "small": "too few rows to test",
    "pooled": "tested together",
    "uses": "decided before",
    "answer_costs": "answers",
    "mistake_costs": "cost of mistakes",
}


@dataclass(frozen=True)
class Measurement:
    """A number of the evidence, for display.

    `low`, `high` and `level` are None for counts. Proportions are in percentage points. `limit` is the maximum. `unit`
    is "points", "" or that of the record.
    """

    name: str
    value: float
    unit: str
    low: float | None = None
    high: float | None = None
    level: float | None = None
    rows: int | None = None
    limit: float | None = None

    @property
    def within(self) -> bool | None:
        """Whether the limit is not significantly exceeded, as in the promotion gate; None without a limit."""
        shown = self.value if self.low is None else self.low
        return None if self.limit is None else shown <= self.limit


@dataclass(frozen=True)
class Numbers:
    """Numbers with an interval or a limit, and all other facts by name."""

    measured: tuple[Measurement, ...]
    facts: Mapping[str, str]


def numbers_of(evidence: Mapping[str, Any]) -> Numbers:
    """Read all of a record's evidence."""
    return Numbers(tuple(_measured(evidence, ())), dict(_facts(evidence, ())))


def _measured(part: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[Measurement]:
    value = _value_name(part)
    if value is not None:
        yield _one(part, value, path)
    for name, inner in part.items():
        if isinstance(inner, Mapping) and not _is_interval(inner):
            yield from _measured(inner, (*path, name))


def _value_name(part: Mapping[str, Any]) -> str | None:
    """The field with the number, if this part of the evidence is an estimate."""
    if not (_is_interval(part.get("interval")) or part.get("limit") is not None):
        return None
    return next((name for name in VALUES if isinstance(part.get(name), int | float)), None)


def _one(part: Mapping[str, Any], value: str, path: tuple[str, ...]) -> Measurement:
    scale, unit = (100.0, "points") if value in PERCENT_VALUES else (1.0, str(part.get("unit", "")))
    interval = part.get("interval") or {}

    def scaled(number: float | None) -> float | None:
        return None if number is None else scale * number

    return Measurement(
        name=_subject(path),
        value=scale * part[value],
        unit=unit,
        low=scaled(interval.get("low")),
        high=scaled(interval.get("high")),
        level=interval.get("level"),
        rows=part.get("rows"),
        limit=scaled(part.get("limit")),
    )


def _facts(part: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    value_name = _value_name(part)
    shown = {value_name, "interval", "rows", "limit", "unit"} if value_name is not None else set()
    for name, value in part.items():
        if _is_interval(value) and name not in shown:
            yield _named(path, name), f"{value['low']:.4g} to {value['high']:.4g} ({value['level']:.0%})"
        elif isinstance(value, Mapping) and not _is_interval(value):
            yield from _facts(value, (*path, name))
        elif value is not None and name not in shown:
            yield _named(path, name), _text(value)


def _subject(path: tuple[str, ...]) -> str:
    """The display name of a path in the evidence, such as "frozen holdout" or "label positive"."""
    named = [part for part in path if part not in ("slices", "limits", "rivals")]
    return ", ".join(SUBJECTS.get(part, part.replace("_", " ")) for part in named) or "evidence"


def _named(path: tuple[str, ...], name: str) -> str:
    word = name.replace("_", " ")
    return f"{_subject(path)}: {word}" if path else word


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    if isinstance(value, float):
        return f"{value:.4g}" if 0 < abs(value) < LEAST_PLAIN else significant(value, 4)
    return str(value)


def _is_interval(value: Any) -> bool:
    return isinstance(value, Mapping) and set(value) == INTERVAL
