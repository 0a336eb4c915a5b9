"""Merging an adapter into a copy of the base model's layers, which makes it as fast as the base."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import PreTrainedModel

# A merged adapter copies the layers that it changes. For a larger base, adapters stay unmerged.
MERGED_BYTES = 2 << 30


def can_merge(base: PreTrainedModel) -> bool:
    """Whether the base is small enough. Nothing else counts, so that evaluation and serving agree."""
    return sum(weight.nbytes for weight in base.parameters()) <= MERGED_BYTES


@torch.no_grad()
def merge_adapter(base: PreTrainedModel, adapter: Path) -> PreTrainedModel:
    """A model with the adapter merged in. It shares all unchanged layers with the base, which is not modified.

    Layers are merged in fp32 and rounded once to the base's precision.
    """
    shared = [*base.parameters(), *base.buffers()]
    adapted = PeftModel.from_pretrained(copy.deepcopy(base, {id(one): one for one in shared}), adapter)
    for layer in adapted.modules():
        if isinstance(layer, LoraLayer):
            _merge(layer)
    model = adapted.unload()
    assert isinstance(model, PreTrainedModel)
    model.train(False)
    return model


def _merge(layer: LoraLayer) -> None:
    inner = layer.get_base_layer()
    kept = {name: weight.dtype for name, weight in inner.named_parameters(recurse=False)}
    for name in kept:
        setattr(inner, name, nn.Parameter(getattr(inner, name).detach().to(torch.float32, copy=True), False))
    layer.merge()
    for name, dtype in kept.items():
        setattr(inner, name, nn.Parameter(getattr(inner, name).detach().to(dtype), False))
