"""The recorded training settings of a version."""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from perpetune.errors import PerpetuneError
from perpetune.loop.run_context import RESOLVED
from perpetune.params import BaseParams, TrainParams
from perpetune.params.renamed_settings import with_new_names
from perpetune.tracking.runs import artifact


class _Task(BaseModel):
    model_config = ConfigDict(frozen=True)

    instruction: str


class _Evaluate(BaseModel):
    model_config = ConfigDict(frozen=True)

    encoder: BaseParams | None = None


class Recipe(BaseModel):
    """The settings that training depends on; others are ignored."""

    model_config = ConfigDict(frozen=True)

    task: _Task
    base: BaseParams
    train: TrainParams
    evaluate: _Evaluate = _Evaluate()


def recorded_recipe(run_id: str, scratch: Path) -> Recipe:
    """Read a run's settings: all with their values or, of older runs, its params.yaml, which set them all.

    Raises PerpetuneError if the run has none, or its settings are not valid any more.
    """
    path = artifact(run_id, RESOLVED, scratch) or artifact(run_id, "params.yaml", scratch)
    if path is None:
        raise PerpetuneError(
            f"the run {run_id} has no params.yaml", do="choose another version: this one cannot be reproduced"
        )
    try:
        return Recipe.model_validate(with_new_names(yaml.safe_load(path.read_text(encoding="utf-8"))))
    except ValidationError as fault:
        fields = ", ".join(".".join(map(str, each["loc"])) for each in fault.errors())
        raise PerpetuneError(
            f"the recorded settings are not valid in this release of perpetune: {fields}",
            where=f"{path.name} of run {run_id}",
            do="install the release of perpetune that made the version, and reproduce it with that",
        ) from fault
