"""`torchrun --nproc-per-node 4 -m perpetune.training.job FOLDER`: a training run from files, for any launcher.

The folder has `job.json` (see `Job`), `train.jsonl` and `validation.jsonl`. The leader prints its progress as JSON lines
and finally writes `trained.json`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from perpetune.errors import PerpetuneError
from perpetune.files import write_atomic
from perpetune.model.base import Base, load_base, load_tokenizer
from perpetune.model.chat.chat_format import with_format
from perpetune.model.loading import read_config
from perpetune.model.weights import resolve, weight_files
from perpetune.records import Example
from perpetune.training.batches import encode_all
from perpetune.training.distributed import SINGLE_PROCESS, World, init_distributed, shutdown_distributed
from perpetune.training.job_files import REFUSAL, TRAINED, Job
from perpetune.training.memory_estimate import estimate_memory, refuse_if_too_small, shape_of
from perpetune.training.trainer import Forecast, OnForecast, Progress, Report, Trained, train

REFUSED = 3  # the exit status if a PerpetuneError ended the training


def write_trained(folder: Path, trained: Trained) -> None:
    write_atomic(folder / TRAINED, json.dumps(asdict(trained), default=str))


def read_trained(folder: Path) -> Trained:
    values = json.loads((folder / TRAINED).read_text(encoding="utf-8"))
    return Trained(**{**values, "adapter": Path(values["adapter"])})


def run_job(folder: Path) -> None:
    job = Job.model_validate_json((folder / "job.json").read_text(encoding="utf-8"))
    world = init_distributed()
    rows, validation = _rows(folder / "train.jsonl"), _rows(folder / "validation.jsonl")
    trained = train_here(job, rows, validation, _print_json, _print_json, world)
    if world.is_leader:
        write_trained(folder, trained)
    shutdown_distributed(world)


def train_here(
    job: Job,
    train_rows: Sequence[Example],
    validation_rows: Sequence[Example],
    report: Report,
    on_forecast: OnForecast | None = None,
    world: World = SINGLE_PROCESS,
) -> Trained:
    """Train in this process. Raises PerpetuneError as `train` does, and if memory is insufficient."""
    base = _load_for(job, train_rows, validation_rows, world.size)
    return train(
        base,
        train_rows,
        validation_rows,
        job.instruction,
        job.params,
        job.adapter,
        report,
        job.checkpoints,
        world,
        on_forecast,
        job.labels,
    )


def _load_for(job: Job, train_rows: Sequence[Example], validation_rows: Sequence[Example], processes: int) -> Base:
    """Load the base model. Raises PerpetuneError before, if its training does not fit into memory."""
    folder = resolve(job.base, job.assets)
    weight_files(folder)
    tokenizer = with_format(load_tokenizer(folder), job.prompt_format)
    rows = encode_all(tokenizer, train_rows, job.instruction, job.params, job.labels)
    if rows:
        shape = shape_of(read_config(folder), job.params.lora.target_modules)
        memory = estimate_memory(shape, job.params, rows, validates=bool(validation_rows), processes=processes)
        refuse_if_too_small(memory, job.base, shape, job.params)
    base = load_base(job.base, job.assets, job.params.precision, four_bit=job.params.method == "qlora")
    return replace(base, tokenizer=with_format(base.tokenizer, job.prompt_format))


def _rows(path: Path) -> list[Example]:
    return [Example.model_validate_json(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _print_json(message: Progress | Forecast) -> None:
    print(json.dumps(asdict(message)), flush=True)


if __name__ == "__main__":
    try:
        run_job(Path(sys.argv[1]))
    except PerpetuneError as fault:
        write_atomic(Path(sys.argv[1]) / REFUSAL, json.dumps([fault.what, fault.where, fault.do]))
        sys.exit(REFUSED)
