"""A killed run resumes with the same result as an uninterrupted one."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from perpetune.model.base import Base, load_base
from perpetune.params import BaseParams, TrainParams
from perpetune.records import Example
from perpetune.training.checkpoint import BEFORE, FILE, CheckpointStore
from perpetune.training.trainer import Progress, Trained, train

pytestmark = pytest.mark.slow

THINGS = ("sky", "sea", "grass", "leaf", "blood", "fire")
ROWS = [
    Example(input=f"the {thing}", output=colour, id=thing, group=thing, source="test")
    for thing, colour in zip(THINGS, ("blue", "blue", "green", "green", "red", "red"), strict=True)
]

# Exits after a given step, like a machine that fails.
VICTIM = """
import json, sys
from pathlib import Path
from perpetune.params import BaseParams, TrainParams
from perpetune.records import Example
from perpetune.model.base import load_base
from perpetune.training.trainer import train
import torch
torch.set_num_threads(1)
told = json.loads(sys.argv[1])
rows = [Example.model_validate(row) for row in told["rows"]]
base = load_base(BaseParams.model_validate(told["base"]), Path("/nowhere"), "fp32")
params = TrainParams.model_validate(told["params"])
folder = Path(told["folder"])
def report(progress):
    print(progress.step, flush=True)
print(train(base, rows, rows, "which colour", params, folder / "adapter", report, folder / "checkpoints").digest)
"""


@pytest.fixture
def params(train_params: TrainParams) -> TrainParams:
    """With dropout, so that the random state counts."""
    lora = train_params.lora.model_copy(update={"dropout": 0.2})
    return train_params.model_copy(update={"epochs": 8.0, "lora": lora})


class PowerCut(Exception):
    pass


def run(
    base: Base, params: TrainParams, folder: Path, *, until: int | None = None, notes: list[str] | None = None
) -> tuple[Trained | None, list[int]]:
    steps: list[int] = []

    def report(progress: Progress) -> None:
        steps.append(progress.step)
        if notes is not None:
            notes.extend(progress.notes)
        if progress.step == until:
            raise PowerCut

    try:
        return train(
            base, ROWS, ROWS, "which colour", params, folder / "adapter", report, folder / "checkpoints"
        ), steps
    except PowerCut:
        return None, steps


@pytest.mark.parametrize("every", [0.0, 1e9])
def test_interrupted_and_uninterrupted_runs_have_equal_results(
    tiny_params: BaseParams, params: TrainParams, tmp_path: Path, every: float
) -> None:
    params = params.model_copy(update={"checkpoint_seconds": every})
    whole, _ = run(load_base(tiny_params, tmp_path, "fp32"), params, tmp_path / "whole")
    broken = tmp_path / "broken"
    run(load_base(tiny_params, tmp_path, "fp32"), params, broken, until=5)
    resumed, steps = run(load_base(tiny_params, tmp_path, "fp32"), params, broken)
    assert whole is not None
    assert resumed is not None
    assert steps[0] == (5 if every == 0 else 1), "a step is told before it is put down"
    assert (resumed.digest, resumed.best_step, resumed.tokens) == (whole.digest, whole.best_step, whole.tokens)
    assert list((broken / "checkpoints").glob("*")) == [], "a finished run leaves none"


def test_a_checkpoint_of_another_run_is_not_taken_up(
    tiny_params: BaseParams, params: TrainParams, tmp_path: Path
) -> None:
    run(load_base(tiny_params, tmp_path, "fp32"), params, tmp_path, until=5)
    other = params.model_copy(update={"seed": params.seed + 1})
    _, steps = run(load_base(tiny_params, tmp_path, "fp32"), other, tmp_path)
    assert steps[0] == 1


def damage(path: Path, how: str) -> None:
    content = path.read_bytes()
    path.write_bytes({"truncated": content[: len(content) // 2], "empty": b"", "other": b"not a checkpoint"}[how])


@pytest.mark.parametrize("how", ["truncated", "empty", "other"])
def test_a_damaged_checkpoint_costs_one_step(
    tiny_params: BaseParams, params: TrainParams, tmp_path: Path, how: str
) -> None:
    whole, _ = run(load_base(tiny_params, tmp_path, "fp32"), params, tmp_path / "whole")
    broken = tmp_path / "broken"
    run(load_base(tiny_params, tmp_path, "fp32"), params, broken, until=5)
    damage(broken / "checkpoints" / FILE, how)
    notes: list[str] = []
    resumed, steps = run(load_base(tiny_params, tmp_path, "fp32"), params, broken, notes=notes)
    assert steps[0] == 4, "from the checkpoint of step 3, the one before"
    assert whole is not None
    assert resumed is not None
    assert resumed.digest == whole.digest
    [note] = notes
    assert re.search(r"checkpoint\.pt cannot be read .*: the training goes on from step 3", note)


def test_without_a_readable_checkpoint_the_training_starts_anew(
    tiny_params: BaseParams, params: TrainParams, tmp_path: Path
) -> None:
    run(load_base(tiny_params, tmp_path, "fp32"), params, tmp_path, until=5)
    for name in (FILE, BEFORE):
        damage(tmp_path / "checkpoints" / name, "truncated")
    notes: list[str] = []
    _, steps = run(load_base(tiny_params, tmp_path, "fp32"), params, tmp_path, notes=notes)
    assert steps[0] == 1
    assert all(note.endswith("the training starts again") for note in notes) and len(notes) == 2


def test_a_full_disk_does_not_end_the_training(tiny_params: BaseParams, params: TrainParams, tmp_path: Path) -> None:
    whole, _ = run(load_base(tiny_params, tmp_path, "fp32"), params, tmp_path / "whole")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "checkpoints").write_text("a file, in which no checkpoint can be")
    notes: list[str] = []
    trained, _ = run(load_base(tiny_params, tmp_path, "fp32"), params, tmp_path / "full", notes=notes)
    assert whole is not None
    assert trained is not None
    assert trained.digest == whole.digest
    assert "the checkpoint of step 1 cannot be written" in notes[0] and "goes on without it" in notes[0]


def test_a_checkpoint_that_ends_in_a_full_disk_leaves_the_one_before(
    tiny_params: BaseParams, params: TrainParams, tmp_path: Path
) -> None:
    """The kernel refuses to write beyond a file size, in the middle of the checkpoint, as a full disk does."""
    run(load_base(tiny_params, tmp_path, "fp32"), params, tmp_path, until=5)
    stored = torch.load(tmp_path / "checkpoints" / FILE, weights_only=True)
    store = CheckpointStore(tmp_path / "checkpoints", stored["identity"], 0)
    before = store.load().checkpoint
    assert before is not None
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        fault = store.save(replace(before, step=99))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert fault is not None
    assert "the checkpoint of step 99 cannot be written" in fault
    assert sorted(path.name for path in store.folder.iterdir()) == [BEFORE, FILE]
    again = store.load()
    assert again.checkpoint is not None
    assert (again.checkpoint.step, again.notes) == (before.step, ())


def test_killed_at_any_moment(tiny_params: BaseParams, params: TrainParams, tmp_path: Path) -> None:
    def told(folder: str) -> list[str]:
        rows = [row.model_dump(mode="json") for row in ROWS]
        work = {
            "rows": rows,
            "base": tiny_params.model_dump(),
            "params": params.model_dump(mode="json"),
            "folder": str(tmp_path / folder),
        }
        return [sys.executable, "-c", VICTIM, json.dumps(work)]

    whole = subprocess.run(told("whole"), capture_output=True, text=True, check=True).stdout.split()[-1]
    with subprocess.Popen(told("broken"), stdout=subprocess.PIPE, text=True) as victim:
        assert victim.stdout is not None
        while victim.stdout.readline().strip() != "7":
            pass
        os.kill(victim.pid, signal.SIGKILL)
    again = subprocess.run(told("broken"), capture_output=True, text=True, check=True).stdout.split()
    assert int(again[0]) >= 7, "it went on instead of beginning anew"
    assert again[-1] == whole
