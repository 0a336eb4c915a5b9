"""Low-rank adapters by peft: LoRA (Hu et al. 2021, arXiv:2106.09685), rank-stabilised (Kalajdzievski 2023,
arXiv:2312.03732) and weight-decomposed (DoRA, Liu et al. 2024, arXiv:2402.09353)."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

import torch
from peft import LoraConfig, PeftModel, get_peft_model

from perpetune.params import LoraParams
from perpetune.training.base import Base

WEIGHTS = "adapter_model.safetensors"


def with_new_adapter(
    base: Base, params: LoraParams, seed: int, method: Literal["lora", "rslora", "dora"] = "lora"
) -> PeftModel:
    """Put a fresh adapter on the base, its first weights drawn from the seed."""
    targets = params.target_modules
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=params.rank,
        lora_alpha=params.alpha,
        lora_dropout=params.dropout,
        use_rslora=method == "rslora",
        use_dora=method == "dora",
        target_modules=targets if isinstance(targets, str) else list(targets),
    )
    torch.manual_seed(seed)
    model = get_peft_model(base.model, config)
    assert isinstance(model, PeftModel)
    return model


def save_adapter(model: PeftModel, folder: Path) -> str:
    """Write the adapter (a few MB, never the base) and return the sha256 of its weights."""
    model.save_pretrained(str(folder))
    return adapter_digest(folder)


def adapter_digest(folder: Path) -> str:
    return hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
