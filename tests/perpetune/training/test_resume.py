"""A killed run resumes with the same result as an uninterrupted one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from perpetune.model.base import Base, load_base
from perpetune.params import BaseParams, TrainParams
from perpetune.records import Example
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


def run(base: Base, params: TrainParams, folder: Path, *, until: int | None = None) -> tuple[Trained | None, list[int]]:
    steps: list[int] = []

    def report(progress: Progress) -> None:
        steps.append(progress.step)
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
