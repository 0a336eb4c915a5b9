"""Launch a training in this process or in several."""

from __future__ import annotations

import json
import shlex
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from perpetune.errors import PerpetuneError
from perpetune.records import Example
from perpetune.training.job import read_trained, train_here
from perpetune.training.job_files import REFUSAL, Job, write_job
from perpetune.training.processes import process_count, torchrun
from perpetune.training.trainer import Forecast, OnForecast, Progress, Report, Trained


def launch(
    job: Job,
    train_rows: Sequence[Example],
    validation_rows: Sequence[Example],
    report: Report,
    launcher: str | None = None,
    on_forecast: OnForecast | None = None,
) -> Trained:
    """Train in `job.params.processes` processes on this machine, or through a `launcher`.

    A launcher is a command such as `torchrun --nnodes 2 ...` that starts `-m perpetune.training.job FOLDER` in every
    process of a cluster; FOLDER is in the adapter's parent folder, which must be on shared storage.
    Raises PerpetuneError as `train` does, if memory is insufficient, and if a process fails.
    """
    count = process_count(job.params)
    if count == 1 and launcher is None:
        return train_here(job, train_rows, validation_rows, report, on_forecast)
    job.adapter.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=job.adapter.parent, prefix="job-") as scratch:
        folder = Path(scratch)
        write_job(folder, job, train_rows, validation_rows)
        command = shlex.split(launcher) if launcher else torchrun(count)
        _follow([*command, "-m", "perpetune.training.job", str(folder)], folder, report, on_forecast)
        return read_trained(folder)


def _follow(command: list[str], folder: Path, report: Report, on_forecast: OnForecast | None) -> None:
    """Run the command, and report its progress lines."""
    last: list[str] = []
    with (folder / "stderr").open("w+", encoding="utf-8") as errors:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as processes:
            assert processes.stdout is not None
            try:
                for line in processes.stdout:
                    if line.startswith('{"step"'):
                        report(Progress(**json.loads(line)))
                    elif line.startswith('{"steps"') and on_forecast is not None:
                        on_forecast(Forecast(**json.loads(line)))
            except BaseException:
                processes.terminate()
                raise
        errors.seek(0)
        last = _error_lines(errors.read().splitlines())
    if processes.returncode:
        raise _fault(folder, processes.returncode, last)


def _error_lines(lines: list[str]) -> list[str]:
    """The last lines of the process that failed first, without the launcher's summary after them."""
    end = next((position for position, line in enumerate(lines) if "failed (exitcode" in line), len(lines))
    return lines[max(0, end - 15) : end]


def _fault(folder: Path, status: int, last: list[str]) -> PerpetuneError:
    refused = folder / REFUSAL
    if refused.is_file():
        what, where, do = json.loads(refused.read_text(encoding="utf-8"))
        return PerpetuneError(what, where=where, do=do)
    return PerpetuneError(
        f"a training process ended with status {status}:\n" + "\n".join(last),
        where="params.yaml: train.processes",
        do="fix the error and run it again: it resumes from the last checkpoint",
    )
