from __future__ import annotations

from pathlib import Path

import pytest

from perpetune.curation.running.estimate import estimate
from perpetune.curation.running.layout import RAW


@pytest.mark.parametrize(
    ("stage", "rows", "said"),
    [
        ("split", 100_000, "split: about 18 seconds for 100,000 rows"),
        ("split", 1_000_000, "split: about 3 minutes for 1,000,000 rows"),
        ("split", 1_000, None),
        ("reference", 1_000_000, None),
        ("params", 1_000_000, None),
    ],
)
def test_only_a_long_stage_says_how_long(stage: str, rows: int, said: str | None, tmp_path: Path) -> None:
    (tmp_path / RAW).mkdir(parents=True)
    (tmp_path / RAW / "examples.jsonl").write_text("{}\n" * rows)
    assert estimate(stage, tmp_path) == said


def test_without_rows_nothing_is_said(tmp_path: Path) -> None:
    assert estimate("split", tmp_path) is None
