"""The files of a training run. This module needs no torch: launchers and workers that pass a job on import it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from perpetune.files import write_atomic
from perpetune.generation.prompt_format import PromptFormat, prompt_format
from perpetune.params import BaseParams, TrainParams
from perpetune.records import Example

TRAINED = "trained.json"
REFUSAL = "refused.json"  # the PerpetuneError that ended the training


class Job(BaseModel):
    """A training run: data-independent settings and output folders. `labels` are those of a label head, None for none.

    `prompt_date` is the day that the chat template takes for today; None for the real one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: BaseParams
    assets: Path
    instruction: str
    params: TrainParams
    adapter: Path
    checkpoints: Path | None
    labels: tuple[str, ...] | None = None
    # Left out if None: the job may go to code that does not know it, to reproduce an old version.
    prompt_date: date | None = Field(default=None, exclude_if=lambda given: given is None)

    @property
    def prompt_format(self) -> PromptFormat:
        return prompt_format(self.base.chat_template_kwargs, self.prompt_date)


def write_job(folder: Path, job: Job, train_rows: Sequence[Example], validation_rows: Sequence[Example]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (("train", train_rows), ("validation", validation_rows)):
        write_atomic(folder / f"{name}.jsonl", "".join(f"{row.model_dump_json()}\n" for row in rows))
    write_atomic(folder / "job.json", job.model_dump_json())
