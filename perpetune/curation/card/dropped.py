"""Rows that a step dropped or reported, by reason, with examples."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from perpetune.curation.quarantine import Quarantined, Rejected
from perpetune.curation.text import shortened

SHOWN_ROWS = 3
"""Example rows per reason."""


@dataclass(frozen=True)
class ShownRow:
    """A rejected or quarantined row: its location, content and detail of the reason."""

    location: str
    input: str
    output: str
    detail: str


@dataclass(frozen=True)
class QuarantineReason:
    """The number of rows that a step dropped for one reason, with examples."""

    step: str
    reason: str
    rows: int
    examples: tuple[ShownRow, ...]


def reasons_of(step: str, quarantined: Iterable[Quarantined]) -> list[QuarantineReason]:
    counts: Counter[str] = Counter()
    first: dict[str, list[ShownRow]] = defaultdict(list)
    for row in quarantined:
        counts[row.reason] += 1
        if counts[row.reason] <= SHOWN_ROWS:
            first[row.reason].append(_shown(row))
    return [QuarantineReason(step, reason, rows, tuple(first[reason])) for reason, rows in counts.most_common()]


def rejected_reasons(rejected: Iterable[Rejected]) -> list[QuarantineReason]:
    """Rejected rows by invalid field, because their reasons quote values and are all different."""
    counts: Counter[str] = Counter()
    first: dict[str, list[ShownRow]] = defaultdict(list)
    for row in rejected:
        fault = f"invalid {row.field}" if row.field else "unreadable row"
        counts[fault] += 1
        if counts[fault] <= SHOWN_ROWS:
            first[fault].append(ShownRow(f"{row.file}:{row.line}", shortened(row.raw, 160), "", row.reason))
    return [QuarantineReason("fetch", fault, rows, tuple(first[fault])) for fault, rows in counts.most_common()]


def _shown(row: Quarantined) -> ShownRow:
    example = row.example
    return ShownRow(
        location=f"{example.source} · {shortened(example.id, 40)}",
        input=shortened(example.input, 160),
        output=shortened(example.output, 60),
        detail=shortened(row.detail, 120),
    )
