from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from perpetune.curation.__main__ import STAGES
from perpetune.curation.running import engine as engines
from perpetune.curation.steps import validate
from perpetune.params import load_params
from perpetune.records import Example, write_jsonl

PARAMS = 'schema: 2\ntask: {name: made, kind: classification, instruction: "Which?"}\nrepair: {boilerplate: remove}\n'
DVC = "stages: {validate: {}, repair: {}, language: {}, private: {}, clean: {}, split: {}}"
BYTES_A_ROW = 300
"""A row in memory takes 900 and more."""


def row(number: int) -> Example:
    text = f"{number} is the number of the parcel that I sent to {number * 7} on Monday, and nobody knows where it went since"
    return Example(input=text, output=f"{number % 3}", id=f"{number:06}", group=f"{number:016x}", source="made")


def peak(stage: str, rows: int, workspace: Path) -> int:
    """Bytes that the stage held at most."""
    before = {"validate": "raw", "repair": "valid", "language": "repaired", "private": "language", "clean": "private"}[
        stage
    ]
    write_jsonl(workspace / "data" / before / "examples.jsonl", map(row, range(rows)))
    params = load_params(workspace / "params.yaml")
    tracemalloc.start()
    try:
        STAGES[stage](params, workspace)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["validate", "repair", "language", "private", "clean"])
def test_a_stage_holds_no_more_rows_if_there_are_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    (tmp_path / "params.yaml").write_text(PARAMS, encoding="utf-8")
    (tmp_path / "dvc.yaml").write_text(DVC, encoding="utf-8")
    monkeypatch.setattr(engines, "BATCH", 100)
    monkeypatch.setattr(validate, "BATCH", 100)
    peak(stage, 3_000, tmp_path)  # fills the caches of a first run
    few, many = (peak(stage, rows, tmp_path) for rows in (500, 3_000))
    assert many - few < 2_500 * BYTES_A_ROW
