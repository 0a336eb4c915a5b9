"""The files of a step: kept rows, quarantined rows and counts; apart from them what it changed and reported, and seconds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import SpooledTemporaryFile
from time import perf_counter
from typing import IO

from pydantic import BaseModel

from perpetune.curation.quarantine import (
    Changed,
    Quarantined,
    StepResult,
    by_reason,
    changes_in_order,
    in_order,
    most_frequent_first,
    quarantine_in_order,
)
from perpetune.curation.running.layout import SECONDS, STEPS
from perpetune.curation.running.pipeline import FOLDERS
from perpetune.files import lines_atomic, write_atomic
from perpetune.records import Record, StoredRecords, as_line, to_json

_IN_MEMORY = 1 << 20  # bytes of the quarantined rows of a reason; more are on disk until the file is written


@dataclass(frozen=True)
class StepFacts:
    """What a step did to rows. `seconds` is how long its last run took, None if it was not written down."""

    quarantined: Collection[Quarantined] = ()
    changed: Collection[Changed] = ()
    reported: Collection[Quarantined] = ()
    seconds: float | None = None


class _Duration(BaseModel):
    seconds: float


def write_step(workspace: Path, step: str, result: StepResult) -> str:
    """As `write_batches`, for all rows at once."""
    return write_batches(workspace, step, [result])


def write_batches(workspace: Path, step: str, batches: Iterable[StepResult]) -> str:
    """Write `examples.jsonl` and the files of `write_quarantine`; returns a summary line.

    The rows of a batch come before those of the next in the canonical order, so that only one batch is in memory.
    """
    with lines_atomic(workspace / FOLDERS[step] / "examples.jsonl") as write:
        counts = write_quarantine(workspace, step, _each_written(batches, write))
    parts = [f"{counts.kept:,} examples, {counts.quarantined.total():,} quarantined"]
    if counts.changed:
        parts.append(f"{counts.changed:,} changed")
    if counts.reported:
        parts.append(f"{counts.reported:,} reported")
    return ", ".join(parts)


def _each_written(batches: Iterable[StepResult], write: Callable[[str], None]) -> Iterator[StepResult]:
    for batch in batches:
        for row in in_order(batch.kept):
            write(as_line(row))
        yield batch


@dataclass
class Counts:
    """Rows kept, changed and reported, and those quarantined by reason."""

    kept: int = 0
    changed: int = 0
    reported: int = 0
    quarantined: Counter[str] = field(default_factory=Counter)

    def add(self, batch: StepResult) -> None:
        self.kept += len(batch.kept)
        self.changed += len({(each.source, each.id) for each in batch.changed})
        self.reported += len({(row.example.source, row.example.id) for row in batch.reported})
        self.quarantined.update(by_reason(batch.quarantined))


def write_quarantine(workspace: Path, step: str, batches: Iterable[StepResult]) -> Counts:
    """Write `quarantined.jsonl` and `counts.json`, and what the step changed and reported to `data/steps/STEP/`."""
    folder, apart = workspace / FOLDERS[step], workspace / STEPS / step
    counts = Counts()
    with (
        _by_reason(folder / "quarantined.jsonl") as quarantine,
        lines_atomic(apart / "changed.jsonl") as write_change,
        _by_reason(apart / "reported.jsonl") as report,
    ):
        for batch in batches:
            counts.add(batch)
            quarantine(batch.quarantined)
            report(batch.reported)
            for change in changes_in_order(batch.changed):
                write_change(as_line(change))
    written = {
        "rows": counts.kept + counts.quarantined.total(),
        "kept": counts.kept,
        "quarantined": most_frequent_first(counts.quarantined),
    }
    write_atomic(folder / "counts.json", to_json(written))
    return counts


@contextmanager
def _by_reason(path: Path) -> Iterator[Callable[[Sequence[Quarantined]], None]]:
    """A function that takes a batch of quarantined rows. The file has those of each reason together, in canonical order."""
    with ExitStack() as stack:
        waiting: dict[str, IO[str]] = {}

        def add(rows: Sequence[Quarantined]) -> None:
            for row in quarantine_in_order(rows):
                if row.reason not in waiting:
                    waiting[row.reason] = stack.enter_context(SpooledTemporaryFile(_IN_MEMORY, "w+", encoding="utf-8"))
                waiting[row.reason].write(as_line(row) + "\n")

        with lines_atomic(path) as write:
            yield add
            for reason in sorted(waiting):
                waiting[reason].seek(0)
                for line in waiting[reason]:
                    write(line.removesuffix("\n"))


@contextmanager
def timed(workspace: Path, step: str) -> Iterator[None]:
    """Write down how long the block took, unless it failed."""
    start = perf_counter()
    yield
    duration = _Duration(seconds=round(perf_counter() - start, 3))
    write_atomic(workspace / SECONDS / f"{step}.json", duration.model_dump_json() + "\n")


def seconds_of(workspace: Path, step: str) -> float | None:
    """How long the last run of the step took; None if it was not written down."""
    path = workspace / SECONDS / f"{step}.json"
    return _Duration.model_validate_json(path.read_bytes()).seconds if path.is_file() else None


def read_facts(workspace: Path, step: str) -> StepFacts:
    """What the step did in its last run."""
    apart = workspace / STEPS / step
    return StepFacts(
        StoredRecords(workspace / FOLDERS[step] / "quarantined.jsonl", Quarantined),
        _stored(apart / "changed.jsonl", Changed),
        _stored(apart / "reported.jsonl", Quarantined),
        seconds_of(workspace, step),
    )


def _stored(path: Path, kind: type[Record]) -> Collection[Record]:
    """The records of a file; none if it is not there."""
    return StoredRecords(path, kind) if path.is_file() else ()
