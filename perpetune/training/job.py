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

from perpetune.errors import PerpetuneError
from perpetune.files import write_whole
from perpetune.params import BaseParams, TrainParams
from perpetune.records import Example
from perpetune.training.base import load_base
from perpetune.training.distributed import join
from perpetune.training.trainer import Progress, Trained, train

REFUSED = 3  # exit status: what went wrong is for people, and written to refused.json


class Job(BaseModel):
    """What to train, and where its files go."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: BaseParams
    assets: Path
    instruction: str
    params: TrainParams
    adapter: Path
    checkpoints: Path | None


def write_job(folder: Path, job: Job, train_rows: Sequence[Example], validation_rows: Sequence[Example]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (("train", train_rows), ("validation", validation_rows)):
        write_whole(folder / f"{name}.jsonl", "".join(f"{row.model_dump_json()}\n" for row in rows))
    write_whole(folder / "job.json", job.model_dump_json())


def read_trained(folder: Path) -> Trained:
    said = json.loads((folder / "trained.json").read_text(encoding="utf-8"))
    return Trained(**{**said, "adapter": Path(said["adapter"])})


def run_job(folder: Path) -> None:
    job = Job.model_validate_json((folder / "job.json").read_text(encoding="utf-8"))
    world = join()
    base = load_base(job.base, job.assets, job.params.precision, four_bit=job.params.method == "qlora")
    trained = train(
        base,
        _rows(folder / "train.jsonl"),
        _rows(folder / "validation.jsonl"),
        job.instruction,
        job.params,
        job.adapter,
        _say,
        job.checkpoints,
        world,
    )
    if world.leads:
        write_whole(folder / "trained.json", json.dumps(asdict(trained), default=str))


def _rows(path: Path) -> list[Example]:
    return [Example.model_validate_json(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _say(progress: Progress) -> None:
    print(json.dumps(asdict(progress)), flush=True)


if __name__ == "__main__":
    try:
        run_job(Path(sys.argv[1]))
    except PerpetuneError as fault:
        write_whole(Path(sys.argv[1]) / "refused.json", json.dumps([fault.what, fault.where, fault.do]))
        sys.exit(REFUSED)
