"""Trainable models: low-rank adapters by peft, or full fine-tuning.

LoRA (Hu et al. 2021, arXiv:2106.09685), rank-stabilised (Kalajdzievski 2023, arXiv:2312.03732),
weight-decomposed (DoRA, Liu et al. 2024, arXiv:2402.09353), and LoRA on a base in 4 bits (QLoRA, Dettmers et
al. 2023, arXiv:2305.14314).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from perpetune.errors import PerpetuneError
from perpetune.model.base import Base
from perpetune.model.lora_targets import ALL_LINEAR, WHERE, LoraTargets, lora_targets
from perpetune.model.release import LABEL_HEAD, POOL
from perpetune.params import LoraParams, Method

ADAPTER = "adapter_model.safetensors"
WHOLE = "model.safetensors"


def trainable(base: Base, method: Method, params: LoraParams, seed: int) -> PeftModel | PreTrainedModel:
    """The base with a new adapter, initialised from the seed; for `full` the base itself in fp32.

    Trained weights are in fp32, because small updates would be rounded away in bf16. Raises PerpetuneError if a target
    module is not in the model, or cannot be adapted.
    """
    torch.manual_seed(seed)
    if method == "full":
        base.model.to(torch.float32)  # type: ignore[arg-type]
        base.model.requires_grad_(True)
        return base.model
    targets = lora_targets(base.model, params.target_modules)
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=params.rank,
        lora_alpha=params.alpha,
        lora_dropout=params.dropout,
        use_rslora=method == "rslora",
        use_dora=method == "dora",
        target_modules=targets.modules,
        exclude_modules=targets.excluded or None,
        target_parameters=targets.parameters or None,
    )
    try:
        model = get_peft_model(base.model, config)
    except (ValueError, NotImplementedError) as fault:  # peft's reason: a layer that this kind of adapter cannot change
        raise PerpetuneError(
            f"peft cannot adapt these modules: {fault}", where=WHERE, do=_advice(targets, method, params)
        ) from fault
    assert isinstance(model, PeftModel)
    return model


def _advice(targets: LoraTargets, method: Method, params: LoraParams) -> str:
    if targets.parameters and (method == "dora" or params.dropout):
        return "experts take method: lora and dropout: 0 only"
    return f"use {ALL_LINEAR}, or other modules"


def save_trained(
    model: PeftModel | PreTrainedModel,
    weights: Mapping[str, Tensor],
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    compute: torch.dtype,
) -> None:
    """Write the trained weights.

    `weights` are the gathered trained weights by name. A fully fine-tuned model is written in its compute precision, with
    its tokenizer.
    """
    if isinstance(model, PeftModel):
        model.save_pretrained(str(folder), state_dict=dict(weights))
    else:
        state = {name: weight.to(compute) for name, weight in weights.items()}
        model.save_pretrained(folder, state_dict=state, max_shard_size="1TB")
        tokenizer.save_pretrained(folder)


def is_adapter(folder: Path) -> bool:
    return (folder / ADAPTER).is_file()


def trained_digest(folder: Path) -> str:
    """The sha256 of the trained weights, label head and ensemble included."""
    digest = hashlib.sha256()
    weights = folder / (ADAPTER if is_adapter(folder) else WHOLE)
    for path in (weights, folder / LABEL_HEAD, *sorted((folder / POOL).glob("*"))):
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()
