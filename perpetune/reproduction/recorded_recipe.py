"""What a version was trained with, as its run recorded it."""

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
    """The settings that training obeys. Others may have been added or have gone since: they are passed over."""

    model_config = ConfigDict(frozen=True)

    task: _Task
    base: BaseParams
    train: TrainParams
    evaluate: _Evaluate = _Evaluate()


def recorded_recipe(run_id: str, scratch: Path) -> Recipe:
    """Read the settings of a run: all of them as they held, or, of older runs, its params.yaml, which held them all.

    Raises PerpetuneError if the run has none, or some that cannot be obeyed now.
    """
    path = artifact(run_id, RESOLVED, scratch) or artifact(run_id, "params.yaml", scratch)
    if path is None:
        raise PerpetuneError(
            f"the run {run_id} holds no params.yaml", do="its settings are lost: it cannot be repeated"
        )
    try:
        return Recipe.model_validate(with_new_names(yaml.safe_load(path.read_text(encoding="utf-8"))))
    except ValidationError as fault:
        fields = ", ".join(".".join(map(str, each["loc"])) for each in fault.errors())
        raise PerpetuneError(
            f"the recorded settings are not those of this perpetune: {fields}",
            where=f"{path.name} of run {run_id}",
            do="install the perpetune that made the version, and repeat it with that",
        ) from fault
