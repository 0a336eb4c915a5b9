"""The output files of a step: kept rows, quarantined rows and counts."""

from __future__ import annotations

from pathlib import Path

from perpetune.curation.quarantine import StepResult, by_reason, in_order, quarantine_in_order
from perpetune.records import to_json, write_jsonl


def write_step(folder: Path, result: StepResult) -> str:
    """Write `examples.jsonl`, `quarantined.jsonl` and `counts.json`; returns a summary line."""
    write_jsonl(folder / "examples.jsonl", in_order(result.kept))
    write_quarantine(folder, result)
    return f"{len(result.kept):,} examples, {len(result.quarantined):,} quarantined"


def write_quarantine(folder: Path, result: StepResult) -> None:
    """Write `quarantined.jsonl` and `counts.json`."""
    write_jsonl(folder / "quarantined.jsonl", quarantine_in_order(result.quarantined))
    counts = {
        "rows": len(result.kept) + len(result.quarantined),
        "kept": len(result.kept),
        "quarantined": by_reason(result.quarantined),
    }
    (folder / "counts.json").write_text(to_json(counts), encoding="utf-8")
