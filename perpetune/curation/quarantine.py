"""Rejected and quarantined rows: everything that curation drops, with its reason."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from typing import TypeVar

from pydantic import BaseModel, ConfigDict

from perpetune.records import Example

_Row = TypeVar("_Row", bound=BaseModel)

EARLIEST = datetime.min.replace(tzinfo=UTC)
"""The time of an example that has none."""


class Rejected(BaseModel):
    """A row of a file that is no valid example. `line` counts from 1 (for Parquet: the row)."""

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
    """An example that a step dropped. `reason` is one of a fixed set, so that reasons can be counted."""

    model_config = ConfigDict(frozen=True)

    reason: str
    detail: str = ""
    example: Example


class Changed(BaseModel):
    """A text of a row that a step changed. `field` is as in the row: `input`, `messages[2].content`."""

    model_config = ConfigDict(frozen=True)

    source: str
    id: str
    field: str
    before: str
    after: str


@dataclass(frozen=True)
class StepResult:
    """The rows that a step kept and those that it quarantined; together they are its input.

    `changed` has the texts of kept rows that it changed. `reported` has kept rows with what is wrong with them: the step
    only reports by its settings, or the rows are in the frozen holdout.
    """

    kept: tuple[Example, ...]
    quarantined: tuple[Quarantined, ...]
    changed: tuple[Changed, ...] = ()
    reported: tuple[Quarantined, ...] = ()


def combined(results: Iterable[StepResult]) -> StepResult:
    """The result for all rows, of those for batches of them."""
    parts = tuple(results)
    return StepResult(
        tuple(row for part in parts for row in part.kept),
        tuple(row for part in parts for row in part.quarantined),
        tuple(each for part in parts for each in part.changed),
        tuple(row for part in parts for row in part.reported),
    )


def by_reason(quarantined: Iterable[Quarantined]) -> dict[str, int]:
    """The number of quarantined rows by reason, most frequent first."""
    return most_frequent_first(Counter(row.reason for row in quarantined))


def most_frequent_first(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


def in_order(examples: Iterable[Example]) -> list[Example]:
    """The canonical order of every file of the pipeline, independent of the input's order."""
    return _sorted(examples, lambda row: (row.source, row.id))


def together(rows: Iterable[Example], others: Iterable[Example]) -> Iterator[Example]:
    """Rows in canonical order, and others, in this order."""
    return heapq.merge(rows, in_order(others), key=lambda row: (row.source, row.id))


def changes_in_order(changed: Iterable[Changed]) -> list[Changed]:
    return sorted(changed, key=lambda each: (each.source, each.id, each.field, each.model_dump_json()))


def quarantine_in_order(quarantined: Sequence[Quarantined]) -> list[Quarantined]:
    return _sorted(quarantined, lambda row: (row.reason, row.example.source, row.example.id))


def _sorted(rows: Iterable[_Row], name_of: Callable[[_Row], tuple[str, ...]]) -> list[_Row]:
    """The rows by their names, and those with one name by all they say, which few rows have to be asked for."""
    ordered: list[_Row] = []
    for _, found in groupby(sorted(rows, key=name_of), key=name_of):
        same = list(found)
        ordered += sorted(same, key=_as_json) if len(same) > 1 else same
    return ordered


def _as_json(row: BaseModel) -> str:
    return row.model_dump_json()
