"""Rows that a step dropped or reported, by reason, with examples."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
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


def reasons_of(step: str, quarantined: Sequence[Quarantined]) -> list[QuarantineReason]:
    by_reason: dict[str, list[Quarantined]] = defaultdict(list)
    for row in quarantined:
        by_reason[row.reason].append(row)
    return [
        QuarantineReason(step, reason, len(rows), tuple(_shown(row) for row in rows[:SHOWN_ROWS]))
        for reason, rows in sorted(by_reason.items(), key=lambda pair: -len(pair[1]))
    ]


def rejected_reasons(rejected: Sequence[Rejected]) -> list[QuarantineReason]:
    """Rejected rows by invalid field, because their reasons quote values and are all different."""
    by_field: dict[str, list[Rejected]] = defaultdict(list)
    for row in rejected:
        by_field[f"invalid {row.field}" if row.field else "unreadable row"].append(row)
    return [
        QuarantineReason(
            "fetch",
            fault,
            len(rows),
            tuple(
                ShownRow(f"{row.file}:{row.line}", shortened(row.raw, 160), "", row.reason) for row in rows[:SHOWN_ROWS]
            ),
        )
        for fault, rows in sorted(by_field.items(), key=lambda pair: -len(pair[1]))
    ]


def _shown(row: Quarantined) -> ShownRow:
    example = row.example
    return ShownRow(
        location=f"{example.source} · {shortened(example.id, 40)}",
        input=shortened(example.input, 160),
        output=shortened(example.output, 60),
        detail=shortened(row.detail, 120),
    )
