from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from perpetune.curation.running.layout import CLEAN, DIVIDED, PRIVATE, RAW, SPLITS, VALID
from perpetune.curation.running.pipeline import FOLDERS, input_of, output_of_split, steps_of
from perpetune.errors import PerpetuneError

ROOT = Path(__file__).parents[4]
FIRST_PIPELINE = {
    "validate": {"deps": ["data/raw"]},
    "clean": {"deps": ["data/raw/output_schema.json", "data/valid"]},
    "split": {"deps": ["data/clean"]},
}


def write(workspace: Path, stages: dict[str, dict[str, list[str]]]) -> Path:
    (workspace / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    return workspace


def test_a_step_reads_what_the_last_step_before_it_wrote(tmp_path: Path) -> None:
    older = write(tmp_path, FIRST_PIPELINE)
    assert steps_of(older) == ("validate", "clean", "split")
    assert [input_of(step, older) for step in steps_of(older)] == [RAW, VALID, CLEAN]
    write(tmp_path, {**FIRST_PIPELINE, "private": {"deps": ["data/valid"]}, "clean": {"deps": ["data/private"]}})
    assert input_of("private", tmp_path) == VALID
    assert input_of("clean", tmp_path) == PRIVATE


def test_without_a_dvc_yaml_there_are_the_steps_of_every_pipeline(tmp_path: Path) -> None:
    assert [input_of(step, tmp_path) for step in ("validate", "clean", "split")] == [RAW, VALID, CLEAN]


@pytest.mark.parametrize("deps", [["data/private"], ["data/private/examples.jsonl"], ["data"]])
def test_a_step_must_depend_on_what_it_reads(tmp_path: Path, deps: list[str]) -> None:
    stages = {**FIRST_PIPELINE, "private": {"deps": ["data/valid"]}}
    with pytest.raises(PerpetuneError, match="the stage clean reads data/private and does not depend on it"):
        input_of("clean", write(tmp_path, stages))
    assert input_of("clean", write(tmp_path, {**stages, "clean": {"deps": deps}})) == PRIVATE


def test_split_leaves_the_splits_to_select(tmp_path: Path) -> None:
    assert output_of_split(write(tmp_path, FIRST_PIPELINE)) == SPLITS
    assert output_of_split(write(tmp_path, {**FIRST_PIPELINE, "select": {}})) == DIVIDED


def test_the_pipeline_of_this_release_depends_on_what_it_reads_and_keeps_what_it_writes() -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    for step in steps_of(ROOT):
        outs = {path for out in stages[step]["outs"] for path in out}
        assert {str(FOLDERS[step]), f"data/steps/{step}"} <= outs
        if step != "select":
            assert input_of(step, ROOT)
        assert str(FOLDERS[step]) in stages["card"]["deps"]
    assert "data/steps" in stages["card"]["deps"]
    assert not any("data/seconds" in dep for stage in stages.values() for dep in stage.get("deps", ()))
