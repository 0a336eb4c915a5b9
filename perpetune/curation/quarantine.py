"""What curation does not pass on, and why: nothing leaves the pipeline unseen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict

from perpetune.records import Example

EARLIEST = datetime.min.replace(tzinfo=UTC)
"""Stands for the time of an example that has none."""


class Rejected(BaseModel):
    """A row of somebody's file that is no example. `line` counts from 1 (in Parquet: the row)."""

    model_config = ConfigDict(frozen=True)

    file: str
    line: int
    field: str | None = None
    reason: str
    raw: str

    def __str__(self) -> str:
        field = f" {self.field}:" if self.field else ""
        return f"{self.file}:{self.line}:{field} {self.reason}"


class Quarantined(BaseModel):
    """An example that a step dropped. `reason` is one of a few fixed sentences, so that they can be counted."""

    model_config = ConfigDict(frozen=True)

    reason: str
    detail: str = ""
    example: Example


@dataclass(frozen=True)
class StepResult:
    """What a step kept and what it set aside; together they are all that it was given."""

    kept: tuple[Example, ...]
    quarantined: tuple[Quarantined, ...]


def by_reason(quarantined: Iterable[Quarantined]) -> dict[str, int]:
    """How many were set aside for each reason, the commonest first."""
    counts = Counter(row.reason for row in quarantined)
    return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


def in_order(examples: Iterable[Example]) -> list[Example]:
    """The one order in which every file of the pipeline is written, whatever order rows came in."""
    return sorted(examples, key=lambda row: (row.source, row.id, row.model_dump_json()))


def quarantine_in_order(quarantined: Sequence[Quarantined]) -> list[Quarantined]:
    return sorted(quarantined, key=lambda row: (row.reason, row.example.source, row.example.id, row.model_dump_json()))
