"""The files of a step: kept rows, quarantined rows and counts; apart from them what it changed and reported, and seconds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from pydantic import BaseModel

from perpetune.curation.layout import SECONDS, STEPS
from perpetune.curation.pipeline import FOLDERS
from perpetune.curation.quarantine import (
    Changed,
    Quarantined,
    StepResult,
    by_reason,
    changes_in_order,
    in_order,
    quarantine_in_order,
)
from perpetune.files import write_atomic
from perpetune.records import Record, read_jsonl, to_json, write_jsonl


@dataclass(frozen=True)
class StepFacts:
    """What a step did to rows. `seconds` is how long its last run took, None if it was not written down."""

    quarantined: tuple[Quarantined, ...] = ()
    changed: tuple[Changed, ...] = ()
    reported: tuple[Quarantined, ...] = ()
    seconds: float | None = None


class _Duration(BaseModel):
    seconds: float


def write_step(workspace: Path, step: str, result: StepResult) -> str:
    """Write `examples.jsonl` and the files of `write_quarantine`; returns a summary line."""
    write_jsonl(workspace / FOLDERS[step] / "examples.jsonl", in_order(result.kept))
    write_quarantine(workspace, step, result)
    parts = [f"{len(result.kept):,} examples, {len(result.quarantined):,} quarantined"]
    if result.changed:
        parts.append(f"{_rows(result.changed):,} changed")
    if result.reported:
        parts.append(f"{len({(row.example.source, row.example.id) for row in result.reported}):,} reported")
    return ", ".join(parts)


def write_quarantine(workspace: Path, step: str, result: StepResult) -> None:
    """Write `quarantined.jsonl` and `counts.json`, and what the step changed and reported to `data/steps/STEP/`."""
    folder, apart = workspace / FOLDERS[step], workspace / STEPS / step
    write_jsonl(folder / "quarantined.jsonl", quarantine_in_order(result.quarantined))
    counts = {
        "rows": len(result.kept) + len(result.quarantined),
        "kept": len(result.kept),
        "quarantined": by_reason(result.quarantined),
    }
    write_atomic(folder / "counts.json", to_json(counts))
    write_jsonl(apart / "changed.jsonl", changes_in_order(result.changed))
    write_jsonl(apart / "reported.jsonl", quarantine_in_order(result.reported))


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
        tuple(read_jsonl(workspace / FOLDERS[step] / "quarantined.jsonl", Quarantined)),
        _read_if_there(apart / "changed.jsonl", Changed),
        _read_if_there(apart / "reported.jsonl", Quarantined),
        seconds_of(workspace, step),
    )


def _read_if_there(path: Path, kind: type[Record]) -> tuple[Record, ...]:
    return tuple(read_jsonl(path, kind)) if path.is_file() else ()


def _rows(changed: tuple[Changed, ...]) -> int:
    return len({(each.source, each.id) for each in changed})
