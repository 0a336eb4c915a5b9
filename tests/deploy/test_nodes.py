"""Two machines train what one does: two torchrun agents meet on this one, through the launchers of docs/guides/gpus.md."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from perpetune.params import TrainParams
from perpetune.records import Example
from perpetune.training.job_files import Job
from perpetune.training.launch import launch
from perpetune.training.trainer import Progress, Trained

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
NODE = ROOT / "deploy" / "slurm" / "node.sh"
# As Slurm's srun does: the same command on each machine, which learns from its environment which one it is.
SRUN = """#!/bin/sh
shift 7
export SLURM_JOB_ID=$$ SLURM_JOB_NODELIST=here SLURM_NNODES=2
SLURM_NODEID=1 "$@" & second=$!
SLURM_NODEID=0 "$@"; status=$?
wait $second && exit $status
"""
SCONTROL = "#!/bin/sh\necho 127.0.0.1; echo 127.0.0.1\n"


def run(job: Job, rows: list[Example], launcher: str | None = None) -> tuple[Trained, list[Progress]]:
    seen: list[Progress] = []
    return launch(job, rows, rows, seen.append, launcher), seen


@pytest.mark.parametrize(
    "launcher",
    [
        pytest.param(
            f"srun --nodes 2 --ntasks-per-node 1 --gpus-per-node 1 --kill-on-bad-exit=1 {NODE}",
            id="two machines of Slurm",
        ),
        pytest.param("accelerate launch --cpu --num_processes 2 --main_process_port 0", id="accelerate"),
    ],
)
def test_the_loss_curve_is_that_of_one_process(
    colour_job: Callable[[TrainParams, Path], Job],
    train_params: TrainParams,
    colour_rows: list[Example],
    tmp_path: Path,
    launcher: str,
) -> None:
    params = train_params.model_copy(update={"epochs": 4.0, "learning_rate": 1e-3})
    one, alone = run(colour_job(params, tmp_path / "one"), colour_rows)
    two, together = run(colour_job(params, tmp_path / "two"), colour_rows, launcher)

    assert len(alone) == one.steps == 8
    assert [step.loss for step in together] == pytest.approx([step.loss for step in alone], rel=1e-4)
    assert two.validation_loss == pytest.approx(one.validation_loss, rel=1e-4)
    assert (two.steps, two.best_step, two.tokens) == (one.steps, one.best_step, one.tokens)


@pytest.fixture(autouse=True)
def slurm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    path = [str(programs), str(Path(sys.executable).parent), os.environ["PATH"]]
    monkeypatch.setenv("PATH", os.pathsep.join(path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
