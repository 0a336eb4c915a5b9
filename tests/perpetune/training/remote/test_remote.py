"""A job whose files go through an object store, here a folder, to a worker in a process of its own."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file
from waiting import eventually

from perpetune.errors import PerpetuneError
from perpetune.flows.remote_training.this_machine import ThisMachine
from perpetune.model.adapters import ADAPTER
from perpetune.params import TrainParams
from perpetune.records import Example
from perpetune.training.job_files import Job, write_job
from perpetune.training.launch import launch
from perpetune.training.remote.client import Patience, train_remotely
from perpetune.training.remote.store import JobStore
from perpetune.training.remote.worker import work
from perpetune.training.trainer import Progress, Trained

pytestmark = pytest.mark.slow

MakeJob = Callable[[TrainParams, Path], Job]


def launcher(store: Path) -> str:
    return shlex.join(
        [
            sys.executable,
            "-m",
            "perpetune.flows.remote_training",
            "--store",
            f"file://{store}",
            "--poll-seconds",
            "0.2",
            "here",
        ]
    )


def run(job: Job, rows: list[Example], launcher: str | None = None) -> tuple[Trained, list[Progress]]:
    seen: list[Progress] = []
    return launch(job, rows, rows, seen.append, launcher), seen


def jobs_in(store: Path) -> list[Path]:
    return [path for path in (store / "jobs").rglob("*") if path.is_file()] if (store / "jobs").exists() else []


def test_the_result_is_that_of_training_here_and_no_row_stays_in_the_store(
    colour_job: MakeJob, train_params: TrainParams, colour_rows: list[Example], tmp_path: Path
) -> None:
    params = train_params.model_copy(update={"epochs": 4.0, "learning_rate": 1e-3})
    store = tmp_path / "store"
    here, alone = run(colour_job(params, tmp_path / "here"), colour_rows)
    there, reported = run(colour_job(params, tmp_path / "there"), colour_rows, launcher(store))

    # The other process has as many threads as it likes, so that sums differ in their last digits.
    assert [step.loss for step in reported] == pytest.approx([step.loss for step in alone], rel=1e-4)
    assert (there.base_digest, there.tokens, there.steps) == (here.base_digest, here.tokens, here.steps)
    assert there.adapter == colour_job(params, tmp_path / "there").adapter
    ours, theirs = load_file(here.adapter / ADAPTER), load_file(there.adapter / ADAPTER)
    for name, weight in ours.items():
        assert (weight - theirs[name]).norm() <= 1e-2 * weight.norm() + 1e-6, name
    assert jobs_in(store) == []
    assert [folder.name for folder in store.iterdir() if any(folder.rglob("config.json"))] == ["bases"]


def test_an_error_of_the_training_is_raised_unchanged(
    colour_job: MakeJob, train_params: TrainParams, colour_rows: list[Example], tmp_path: Path
) -> None:
    params = train_params.model_copy(update={"max_example_tokens": 1})
    with pytest.raises(PerpetuneError, match="all 6 training examples are longer than 1 tokens"):
        run(colour_job(params, tmp_path), colour_rows, launcher(tmp_path / "store"))
    assert jobs_in(tmp_path / "store") == []


def test_a_training_that_is_stopped_goes_on_from_its_checkpoint(
    colour_job: MakeJob, train_params: TrainParams, colour_rows: list[Example], tmp_path: Path
) -> None:
    params = train_params.model_copy(update={"epochs": 100_000.0, "checkpoint_seconds": 0.0})
    job, store = colour_job(params, tmp_path / "stopped"), tmp_path / "store"
    assert job.checkpoints is not None
    write_job(tmp_path / "job", job, colour_rows, colour_rows)
    command = [*shlex.split(launcher(store)), "-m", "perpetune.training.job", str(tmp_path / "job")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as client:
        eventually(lambda: any(job.checkpoints.glob("*.pt")), 200)  # type: ignore[union-attr]
        client.send_signal(signal.SIGTERM)
        assert client.wait(90) != 0
    assert jobs_in(store) == []

    def first_step(progress: Progress) -> None:
        assert progress.step > 1
        raise Resumed

    with pytest.raises(Resumed):
        launch(job, colour_rows, colour_rows, first_step, launcher(store))
    assert jobs_in(store) == []


class Resumed(Exception):
    pass


class Silent:
    """A service whose container ends without having done anything."""

    def start(self, address: str) -> str:
        return "job-7"

    def why_ended(self, job: str) -> str | None:
        return "ImagePullBackOff"

    def stop(self, job: str) -> None:
        pass


def test_a_container_that_ends_without_a_result_is_an_error_that_says_why(
    colour_job: MakeJob, train_params: TrainParams, colour_rows: list[Example], tmp_path: Path
) -> None:
    job = colour_job(train_params, tmp_path)
    write_job(tmp_path / "job", job, colour_rows, [])
    store = JobStore(f"file://{tmp_path / 'store'}")
    with pytest.raises(
        PerpetuneError, match=r"ended without a result: ImagePullBackOff.*job-7|job-7.*ImagePullBackOff"
    ):
        train_remotely(tmp_path / "job", store, Silent(), Patience(poll=0.01))
    assert jobs_in(tmp_path / "store") == []


class EndsAtOnce(Silent):
    """A service whose container stores its result, status 3, while it is asked for."""

    def __init__(self) -> None:
        self.store: JobStore | None = None

    def start(self, address: str) -> str:
        self.store = JobStore(address)
        return "job-7"

    def why_ended(self, job: str) -> str | None:
        assert self.store
        self.store.write("ended.json", b'{"status": 3, "stderr": ""}')
        return "Completed"


def test_a_result_is_not_lost_because_the_store_fails_for_a_moment(
    colour_job: MakeJob,
    train_params: TrainParams,
    colour_rows: list[Example],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Neither when the container has just ended, nor when its files are deleted."""
    write_job(tmp_path / "job", colour_job(train_params, tmp_path), colour_rows, [])
    read, failures = JobStore.read, ["the first one"]

    def fails_once(store: JobStore, name: str) -> bytes | None:
        found = read(store, name)
        if name == "ended.json" and found is not None and failures:
            raise PerpetuneError(f"503 for {failures.pop()}")
        return found

    def fails(store: JobStore) -> None:
        raise PerpetuneError("503")

    monkeypatch.setattr(JobStore, "read", fails_once)
    monkeypatch.setattr(JobStore, "remove", fails)
    store = JobStore(f"file://{tmp_path / 'store'}")
    assert train_remotely(tmp_path / "job", store, EndsAtOnce(), Patience(poll=0.01)) == 3
    assert not failures
    assert "stay in the store: 503" in capsys.readouterr().err


@pytest.mark.parametrize("full", [False, True])
def test_a_worker_whose_client_is_gone_stops_and_deletes_the_rows(
    colour_job: MakeJob,
    train_params: TrainParams,
    colour_rows: list[Example],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    full: bool,
) -> None:
    """Also one whose store is full, so that its progress cannot be stored."""

    def no_room(output: object) -> None:
        raise PerpetuneError("no room")

    if full:
        monkeypatch.setattr("perpetune.training.remote.worker._Output.upload", no_room)
    job = colour_job(train_params.model_copy(update={"epochs": 100_000.0}), tmp_path)
    write_job(tmp_path / "store" / "jobs" / "1", job, colour_rows, colour_rows)
    assert work(f"file://{tmp_path / 'store' / 'jobs' / '1'}", sync_seconds=0.1, abandoned_seconds=0.5) != 0
    assert jobs_in(tmp_path / "store") == []


def test_a_store_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    with pytest.raises(PerpetuneError, match="nosuch://bucket"):
        JobStore("nosuch://bucket/folder")


@pytest.mark.parametrize("module", ["perpetune.flows.remote_training.__main__", "perpetune.training.remote.worker"])
def test_who_passes_a_job_on_loads_neither_torch_nor_prefect(module: str) -> None:
    """The launcher waits beside the flow and the worker beside the training, which need the memory."""
    script = f"import sys, {module}; sys.exit(str({{'torch', 'prefect'}} & sys.modules.keys() or ''))"
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert said.stderr.strip() == ""


def test_this_machine_runs_the_worker(tmp_path: Path) -> None:
    service = ThisMachine()
    name = service.start(f"file://{tmp_path / 'empty'}")
    until = time.monotonic() + 60
    while service.why_ended(name) is None:
        assert time.monotonic() < until
        time.sleep(0.2)
    assert service.why_ended(name) == "it ended with status 1"
