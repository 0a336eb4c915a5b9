"""Several processes train what one does."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file

from perpetune.errors import PerpetuneError
from perpetune.model.adapters import ADAPTER, WHOLE
from perpetune.params import TrainParams
from perpetune.records import Example
from perpetune.training.job_files import Job
from perpetune.training.launch import launch
from perpetune.training.processes import process_count
from perpetune.training.trainer import Progress, Trained

pytestmark = pytest.mark.slow


class PowerCut(Exception):
    pass


def run(job: Job, rows: list[Example], until: int | None = None) -> tuple[Trained | None, list[Progress]]:
    seen: list[Progress] = []

    def report(progress: Progress) -> None:
        seen.append(progress)
        if progress.step == until:
            raise PowerCut

    try:
        return launch(job, rows, rows, report), seen
    except PowerCut:
        return None, seen


@pytest.fixture
def two_processes(train_params: TrainParams) -> TrainParams:
    """Batches of five rows: the two processes have unequal numbers of rows and micro-batches."""
    return train_params.model_copy(
        update={"epochs": 5.0, "batch_size": 5, "max_packed_tokens": 12, "learning_rate": 1e-3, "processes": 2}
    )


def curve_of_two(
    job: Callable[[TrainParams, Path], Job], params: TrainParams, rows: list[Example], folder: Path
) -> list[Progress]:
    """What two processes report, once it is found to be what one reports."""
    one, alone = run(job(params.model_copy(update={"processes": 1}), folder / "one"), rows)
    two, together = run(job(params, folder / "two"), rows)

    assert one is not None
    assert two is not None
    assert [step.loss for step in together] == pytest.approx([step.loss for step in alone], rel=1e-4)
    assert two.validation_loss == pytest.approx(one.validation_loss, rel=1e-4)
    assert (two.steps, two.best_step, two.tokens) == (one.steps, one.best_step, one.tokens)
    assert (two.devices, one.devices) == (2, 1)
    assert two.base_digest == one.base_digest
    file = WHOLE if params.method == "full" else ADAPTER
    ours, theirs = load_file(one.adapter / file), load_file(two.adapter / file)
    assert ours.keys() == theirs.keys()
    for name, weight in ours.items():
        assert (weight - theirs[name]).norm() <= 1e-2 * weight.norm() + 1e-6, name
    return together


def test_two_processes_follow_the_loss_curve_of_one_when_they_train_all_weights(
    colour_job: Callable[[TrainParams, Path], Job],
    two_processes: TrainParams,
    colour_rows: list[Example],
    tmp_path: Path,
) -> None:
    assert curve_of_two(colour_job, two_processes.model_copy(update={"method": "full"}), colour_rows, tmp_path)


def test_two_processes_follow_the_loss_curve_of_one_and_go_on_from_their_checkpoint(
    colour_job: Callable[[TrainParams, Path], Job],
    two_processes: TrainParams,
    colour_rows: list[Example],
    tmp_path: Path,
) -> None:
    curve = curve_of_two(colour_job, two_processes, colour_rows, tmp_path)
    broken = colour_job(two_processes, tmp_path / "broken")
    _, before = run(broken, colour_rows, until=4)
    again, after = run(broken, colour_rows)

    assert again is not None
    assert after[0].step > 1, "it went on instead of beginning from the first step"
    assert after[0].step <= before[-1].step + 2
    wanted = {step.step: step.loss for step in curve}
    assert [step.loss for step in after] == pytest.approx([wanted[step.step] for step in after], rel=1e-5)


def test_an_error_of_a_process_is_raised_unchanged(
    colour_job: Callable[[TrainParams, Path], Job],
    train_params: TrainParams,
    colour_rows: list[Example],
    tmp_path: Path,
) -> None:
    params = train_params.model_copy(update={"processes": 2, "max_example_tokens": 1})
    with pytest.raises(PerpetuneError, match="all 6 training examples are longer than 1 tokens"):
        run(colour_job(params, tmp_path), colour_rows)


@pytest.mark.parametrize("afterwards", ["", "echo failed '(exitcode: 9)' >&2; seq 40 >&2; "])
def test_a_process_that_fails_is_a_perpetune_error(
    colour_job: Callable[[TrainParams, Path], Job],
    train_params: TrainParams,
    colour_rows: list[Example],
    tmp_path: Path,
    afterwards: str,
) -> None:
    launcher = shlex.join(["sh", "-c", f"echo out of memory >&2; {afterwards}exit 9"])
    with pytest.raises(PerpetuneError, match="status 9:\nout of memory"):
        launch(colour_job(train_params, tmp_path), colour_rows, [], lambda _: None, launcher)


def test_auto_is_one_process_for_each_gpu(train_params: TrainParams, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    assert process_count(train_params.model_copy(update={"processes": "auto"})) == 4
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert process_count(train_params.model_copy(update={"processes": "auto"})) == 1
    assert process_count(train_params) == 1


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH", "")])
    )
