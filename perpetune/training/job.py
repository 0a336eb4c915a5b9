"""`torchrun --nproc-per-node 4 -m perpetune.training.job FOLDER`: one training run, from files, in any launcher.

The folder holds `job.json` (see `Job`), `train.jsonl` and `validation.jsonl`. The leading process says its
progress as JSON lines, and at last writes `trained.json`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from pydantic import BaseModel, ConfigDict
from transformers import AutoConfig

from perpetune.errors import PerpetuneError
from perpetune.files import write_atomic
from perpetune.model.base import Base, load_base, load_tokenizer
from perpetune.model.weights import resolve
from perpetune.params import BaseParams, TrainParams
from perpetune.records import Example
from perpetune.training.batches import encode_all
from perpetune.training.distributed import ALONE, World, join, leave
from perpetune.training.memory_estimate import estimate_memory, refuse_if_too_small, shape_of
from perpetune.training.trainer import Forecast, OnForecast, Progress, Report, Trained, train

TRAINED = "trained.json"
REFUSED = 3  # exit status: what went wrong is for people, and written to refused.json


class Job(BaseModel):
    """What to train, and where its files go. `labels` are those of a label head; None learns to write answers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: BaseParams
    assets: Path
    instruction: str
    params: TrainParams
    adapter: Path
    checkpoints: Path | None
    labels: tuple[str, ...] | None = None


def write_job(folder: Path, job: Job, train_rows: Sequence[Example], validation_rows: Sequence[Example]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (("train", train_rows), ("validation", validation_rows)):
        write_atomic(folder / f"{name}.jsonl", "".join(f"{row.model_dump_json()}\n" for row in rows))
    write_atomic(folder / "job.json", job.model_dump_json())


def write_trained(folder: Path, trained: Trained) -> None:
    write_atomic(folder / TRAINED, json.dumps(asdict(trained), default=str))


def read_trained(folder: Path) -> Trained:
    said = json.loads((folder / TRAINED).read_text(encoding="utf-8"))
    return Trained(**{**said, "adapter": Path(said["adapter"])})


def run_job(folder: Path) -> None:
    job = Job.model_validate_json((folder / "job.json").read_text(encoding="utf-8"))
    world = join()
    rows, validation = _rows(folder / "train.jsonl"), _rows(folder / "validation.jsonl")
    trained = train_here(job, rows, validation, _say, _say, world)
    if world.leads:
        write_trained(folder, trained)
    leave(world)


def train_here(
    job: Job,
    train_rows: Sequence[Example],
    validation_rows: Sequence[Example],
    report: Report,
    on_forecast: OnForecast | None = None,
    world: World = ALONE,
) -> Trained:
    """Train in this process, one of the world. Raises PerpetuneError as `train` does, and where memory will not do."""
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
    """The base model, once it is sure that training it fits into memory. Raises PerpetuneError where it does not."""
    folder = resolve(job.base, job.assets)
    rows = encode_all(load_tokenizer(folder), train_rows, job.instruction, job.params, job.labels)
    if rows:
        shape = shape_of(AutoConfig.from_pretrained(folder), job.params.lora.target_modules)
        memory = estimate_memory(shape, job.params, rows, validates=bool(validation_rows), processes=processes)
        refuse_if_too_small(memory, job.base, shape, job.params)
    return load_base(job.base, job.assets, job.params.precision, four_bit=job.params.method == "qlora")


def _rows(path: Path) -> list[Example]:
    return [Example.model_validate_json(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _say(what: Progress | Forecast) -> None:
    print(json.dumps(asdict(what)), flush=True)


if __name__ == "__main__":
    try:
        run_job(Path(sys.argv[1]))
    except PerpetuneError as fault:
        write_atomic(Path(sys.argv[1]) / "refused.json", json.dumps([fault.what, fault.where, fault.do]))
        sys.exit(REFUSED)
