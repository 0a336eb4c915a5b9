"""How long a stage roughly takes, said before it begins."""

from __future__ import annotations

from pathlib import Path

from perpetune.curation.running.layout import RAW

MICROSECONDS = {"validate": 20, "repair": 25, "private": 30, "clean": 55, "split": 180, "reference": 5, "card": 30}
"""CPU time for each row of about 20 words, on one core of a server of 2024 (benchmarks/curation_speed.py)."""
_WORTH_A_WORD = 10  # seconds


def estimate(stage: str, workspace: Path) -> str | None:
    """A sentence for a stage that takes more than a few seconds; None for others, and before there are rows."""
    examples = workspace / RAW / "examples.jsonl"
    if stage not in MICROSECONDS or not examples.is_file():
        return None
    rows = _lines(examples)
    seconds = rows * MICROSECONDS[stage] / 1e6
    if seconds < _WORTH_A_WORD:
        return None
    shown = f"{seconds:.0f} seconds" if seconds < 90 else f"{seconds / 60:.0f} minutes"
    return f"{stage}: about {shown} for {rows:,} rows"


def _lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
