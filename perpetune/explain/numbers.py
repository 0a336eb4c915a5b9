"""The numbers of a decision record, whatever evidence it holds: those with intervals first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

# What the value is called beside its interval. Shares are told in points of a hundred.
SHARES = {"difference": "difference", "drop": "drop", "mean": "score"}
VALUES = (*SHARES, "value")
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
    "lead": "the challenger minus it",
    "gate": "beside what serves",
    "balanced": "gain, each label counting alike",
    "recalls": "found",
    "small": "too small to be tested",
}


@dataclass(frozen=True)
class Measurement:
    """A number as people read it.

    `low`, `high` and `level` are None where it was counted and not estimated, `rows` where none were; shares are in
    points of a hundred. `limit` is what the number may be at most. `unit` is "points", "" or the record's own.
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
        """Whether the limit is not shown to be exceeded, as for the gate; None where there is none."""
        shown = self.value if self.low is None else self.low
        return None if self.limit is None else shown <= self.limit


@dataclass(frozen=True)
class Numbers:
    """Numbers with an interval or a limit, and all other facts of the evidence by name."""

    measured: tuple[Measurement, ...]
    facts: Mapping[str, str]


def numbers_of(evidence: Mapping[str, Any]) -> Numbers:
    """Read the evidence of a record; nothing in it is left out."""
    return Numbers(tuple(_measured(evidence, ())), dict(_facts(evidence, ())))


def _measured(part: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[Measurement]:
    value = _value_name(part)
    if value is not None:
        yield _one(part, value, path)
    for name, inner in part.items():
        if isinstance(inner, Mapping) and not _is_interval(inner):
            yield from _measured(inner, (*path, name))


def _value_name(part: Mapping[str, Any]) -> str | None:
    """The field that is the number itself, where this part is about one."""
    if not (_is_interval(part.get("interval")) or part.get("limit") is not None):
        return None
    return next((name for name in VALUES if isinstance(part.get(name), int | float)), None)


def _one(part: Mapping[str, Any], value: str, path: tuple[str, ...]) -> Measurement:
    scale, unit = (100.0, "points") if value in SHARES else (1.0, str(part.get("unit", "")))
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
    told = _value_name(part)
    shown = {told, "interval", "rows", "limit", "unit"} if told is not None else set()
    for name, value in part.items():
        if _is_interval(value) and name not in shown:
            yield _named(path, name), f"{value['low']:.4g} to {value['high']:.4g} ({value['level']:.0%})"
        elif isinstance(value, Mapping) and not _is_interval(value):
            yield from _facts(value, (*path, name))
        elif value is not None and name not in shown:
            yield _named(path, name), _text(value)


def _subject(path: tuple[str, ...]) -> str:
    """What the number is about, as in "frozen holdout" or "label positive"."""
    named = [part for part in path if part not in ("slices", "limits", "rivals")]
    return ", ".join(SUBJECTS.get(part, part.replace("_", " ")) for part in named) or "evidence"


def _named(path: tuple[str, ...], name: str) -> str:
    word = name.replace("_", " ")
    return f"{_subject(path)}: {word}" if path else word


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _is_interval(value: Any) -> bool:
    return isinstance(value, Mapping) and set(value) == INTERVAL
