"""The files that a step leaves: what it kept, what it set aside, and how many of each."""

from __future__ import annotations

from pathlib import Path

from perpetune.curation.quarantine import StepResult, by_reason, in_order, quarantine_in_order
from perpetune.records import to_json, write_jsonl


def write_step(folder: Path, outcome: StepResult) -> str:
    """Write `examples.jsonl`, `set_aside.jsonl` and `counts.json`; returns the counts as a sentence."""
    write_jsonl(folder / "examples.jsonl", in_order(outcome.kept))
    write_quarantine(folder, outcome)
    return f"{len(outcome.kept):,} examples, {len(outcome.quarantined):,} set aside"


def write_quarantine(folder: Path, outcome: StepResult) -> None:
    """Write `set_aside.jsonl` and `counts.json` alone."""
    write_jsonl(folder / "set_aside.jsonl", quarantine_in_order(outcome.quarantined))
    counts = {
        "rows": len(outcome.kept) + len(outcome.quarantined),
        "kept": len(outcome.kept),
        "set_aside": by_reason(outcome.quarantined),
    }
    (folder / "counts.json").write_text(to_json(counts), encoding="utf-8")
