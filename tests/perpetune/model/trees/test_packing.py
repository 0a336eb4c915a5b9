"""How rows are packed is decided right in every precision, and hardly costs time."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

import pytest
import torch
from tiny_architectures import write_model

from perpetune.errors import PerpetuneError
from perpetune.inference.predictor import Predictor
from perpetune.model.base import Base, load_base
from perpetune.model.trees.packing import longest_in_tree
from perpetune.params import BaseParams
from perpetune.records import Message

pytestmark = pytest.mark.slow

LONGEST = {
    "llama": math.inf,
    "mistral, window": math.inf,
    "gemma3": math.inf,
    "gemma3, with vision": math.inf,
    "gpt-oss": math.inf,
    "qwen3 moe": math.inf,
    "phi3, longrope": 32,
    "moshi, unknown window": 20,
    "modernbert decoder": math.inf,
    "bloom": 0,
    "mpt": 0,
    "falcon, alibi": 0,
    "gpt-neo": 0,
    "lfm2": 0,
    "mamba": 0,
    "qwen3-next": 0,
    "granite moe hybrid": 0,
}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(("name", "longest"), LONGEST.items(), ids=LONGEST)
def test_only_models_that_read_trees_get_them(
    name: str, longest: float, precision: Literal["fp32", "bf16"], tmp_path: Path
) -> None:
    base = load_base(BaseParams(model=f"path:{write_model(name, tmp_path)}", revision=None), tmp_path, precision)
    assert longest_in_tree(base.model) == longest
    base.model.train()
    assert longest_in_tree(base.model) == longest, "dropout is off while it is tried"
    assert base.model.training


@pytest.fixture
def broken(tmp_path: Path) -> Base:
    base = load_base(BaseParams(model=f"path:{write_model('llama', tmp_path)}", revision=None), tmp_path, "fp32")
    with torch.no_grad():
        base.model.get_output_embeddings().weight[7] = math.nan
    return base


def test_scores_that_are_not_numbers_are_no_answer(broken: Base) -> None:
    predictor = Predictor(broken, 64)
    asked = [(Message(role="user", content="w5 w6"),)]
    for labels in (("w7", "w8"), None):
        with pytest.raises(PerpetuneError, match="are not finite"):
            predictor.answer(None, asked, labels, 4)


def test_a_base_whose_scores_are_not_numbers_is_refused(tmp_path: Path) -> None:
    base = load_base(BaseParams(model=f"path:{write_model('gemma', tmp_path)}", revision=None), tmp_path, "fp32")
    with torch.no_grad():
        base.model.get_output_embeddings().weight[7] = math.nan
    with pytest.raises(PerpetuneError, match="the scores of this gemma are not finite"):
        longest_in_tree(base.model)
