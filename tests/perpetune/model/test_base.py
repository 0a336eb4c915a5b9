from __future__ import annotations

from pathlib import Path

import pytest

from perpetune.errors import PerpetuneError
from perpetune.model.base import load_base
from perpetune.model.weights import resolve, weights_digest
from perpetune.params import BaseParams


def test_a_folder_is_loaded_with_its_digest(tiny_folder: Path, tiny_params: BaseParams, tmp_path: Path) -> None:
    base = load_base(tiny_params, tmp_path, "bf16")
    assert base.digest == weights_digest(tiny_folder)
    assert str(base.model.dtype) == "torch.bfloat16"
    assert base.tokenizer.pad_token_id == base.tokenizer.eos_token_id


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("path:/nowhere", "/nowhere is not a model: it has no config.json"),
        ("pypi:no-such-model", "pypi:no-such-model has no revision"),
        ("hf:nobody/no-such-model", "could not fetch nobody/no-such-model@main"),
    ],
)
def test_a_missing_base_is_one_clear_error(
    model: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(PerpetuneError, match=r"base\.model") as fault:
        resolve(BaseParams(model=model, revision=None), tmp_path)
    assert says in str(fault.value)
