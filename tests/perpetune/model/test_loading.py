"""A base that is damaged, incomplete or quantised is one clear error, or loaded right."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_architectures import write_model
from transformers import AutoModelForCausalLM

from perpetune.errors import PerpetuneError
from perpetune.inference.predictor import Predictor
from perpetune.model.base import Base, load_base
from perpetune.model.weights import weights_digest
from perpetune.params import BaseParams, TrainParams
from perpetune.records import Example, Message
from perpetune.training.job import train_here
from perpetune.training.job_files import Job

WEIGHTS, CONFIG = "model.safetensors", "config.json"
LAYER = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture(scope="session")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model("qwen3", tmp_path_factory.mktemp("sound"))


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "model"))


def load(folder: Path) -> Base:
    return load_base(BaseParams(model=f"path:{folder}", revision=None), folder, "fp32")


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def change_config(folder: Path, **values: Any) -> None:
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps({**config, **values}))


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    weights = load_file(folder / WEIGHTS)
    change(weights)
    save_file(weights, folder / WEIGHTS, {"format": "pt"})


def without_a_shard(folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder)
    (folder / WEIGHTS).unlink()
    model.save_pretrained(folder, max_shard_size="40KB")
    next(iter(sorted(folder.glob("model-*.safetensors")))).unlink()


def with_bin(folder: Path) -> None:
    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()


def truncated_bin(folder: Path) -> None:
    with_bin(folder)
    truncate(folder / "pytorch_model.bin")


def in_eight_bits(folder: Path, name: str = "weight_scale_inv", block: int = 16) -> None:
    """Weights in FP8 with a factor for each block, as in DeepSeek-V3 and Qwen3's FP8 models."""
    weights = load_file(folder / WEIGHTS)
    for key in [key for key in weights if key.endswith("proj.weight")]:
        weight = weights[key]
        rows, columns = (size // block for size in weight.shape)
        blocks = weight.view(rows, block, columns, block)
        factors = blocks.abs().amax((1, 3)) / 448
        weights[key] = (blocks / factors[:, None, :, None]).reshape(weight.shape).to(torch.float8_e4m3fn)
        weights[f"{key.removesuffix('weight')}{name}"] = factors
    save_file(weights, folder / WEIGHTS, {"format": "pt"})


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no weights": (lambda model: (model / WEIGHTS).unlink(), "the model has no weights"),
    "truncated weights": (lambda model: truncate(model / WEIGHTS), "cannot load the weights"),
    "empty weights": (lambda model: (model / WEIGHTS).write_bytes(b""), "cannot load the weights"),
    "a pointer of Git LFS": (
        lambda model: (model / WEIGHTS).write_text("version https://git-lfs.github.com/spec/v1\n"),
        "cannot load the weights",
    ),
    "a missing shard": (without_a_shard, "cannot load the weights: .*safetensors"),
    "a missing tensor": (
        lambda model: change_weights(model, lambda weights: weights.pop(LAYER)),
        f"1 of the model's weights are not in the files, such as {LAYER}",
    ),
    "a tensor of another shape": (
        lambda model: change_weights(model, lambda weights: weights.update({LAYER: torch.zeros(7, 7)})),
        "cannot load the weights",
    ),
    "a truncated bin": (truncated_bin, "cannot load the weights"),
    "no tokenizer": (lambda model: (model / "tokenizer.json").unlink(), "cannot load the tokenizer"),
    "a truncated tokenizer": (lambda model: truncate(model / "tokenizer.json"), "cannot load the tokenizer"),
    "an empty tokenizer config": (
        lambda model: (model / "tokenizer_config.json").write_text(""),
        "cannot load the tokenizer",
    ),
    "a truncated config": (lambda model: truncate(model / CONFIG), "cannot load the config.json"),
    "an unknown architecture": (lambda model: change_config(model, model_type="nosuch"), "model type `nosuch`"),
    "code of its own": (
        lambda model: change_config(model, model_type="own", auto_map={"AutoConfig": "configuration_own.Own"}),
        "the model has code of its own",
    ),
    "no language model": (lambda model: change_config(model, model_type="vit"), "no causal language model|vit"),
    "GPTQ": (
        lambda model: change_config(model, quantization_config={"quant_method": "gptq", "bits": 4}),
        r"quantised \(gptq\)",
    ),
    "4 bits": (
        lambda model: change_config(model, quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}),
        r"quantised \(bitsandbytes\)",
    ),
    "FP8 of another maker": (lambda model: in_eight_bits(model, "weight_scale"), "no use for .*weight_scale"),
}


@pytest.mark.parametrize(("damage", "says"), FAULTS.values(), ids=FAULTS)
def test_a_damaged_base_is_one_clear_error(
    folder: Path, damage: Callable[[Path], object], says: str, train_params: TrainParams, tmp_path: Path
) -> None:
    damage(folder)
    with pytest.raises(PerpetuneError, match=says) as fault:
        load(folder)
    assert fault.value.where == str(folder)
    assert fault.value.do
    job = Job(
        base=BaseParams(model=f"path:{folder}", revision=None),
        assets=tmp_path,
        instruction="w5",
        params=train_params,
        adapter=tmp_path / "adapter",
        checkpoints=None,
    )
    row = Example(input="w7 w8", output="w9", id="1", group="1", source="test")
    with pytest.raises(PerpetuneError):
        train_here(job, [row], [], lambda _: pytest.fail("it was trained"))


def test_weights_in_bin_files_have_a_digest_and_the_same_values(folder: Path, sound: Path) -> None:
    with_bin(folder)
    base = load(folder)
    assert base.digest == weights_digest(folder) != weights_digest(sound)
    wanted = dict(load(sound).model.named_parameters())
    assert all(torch.equal(weight, wanted[name]) for name, weight in base.model.named_parameters())
    before = base.digest
    torch.save({}, folder / "pytorch_model.bin")
    assert weights_digest(folder) != before


def test_weights_in_8_bits_are_dequantised(folder: Path, sound: Path) -> None:
    wanted = dict(load(sound).model.named_parameters())
    in_eight_bits(folder)
    change_config(
        folder,
        quantization_config={"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [16, 16]},
    )
    base = load(folder)
    for name, weight in base.model.named_parameters():
        assert weight.dtype == torch.float32
        assert float((weight - wanted[name]).norm() / wanted[name].norm()) < 0.05, name
    [answer] = Predictor(base, 64).answer(None, [(Message(role="user", content="w5 w6"),)], ("w7", "w8"), 4)
    assert answer.probabilities is not None
