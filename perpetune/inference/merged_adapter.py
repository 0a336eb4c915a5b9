"""A base model with an adapter merged into its weights, beside the base: it answers as fast as the base does."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import PreTrainedModel

# Every merged adapter is a copy of the layers that it changes. Of a larger base one adapter after another stays apart.
MERGED_BYTES = 2 << 30


def can_merge(base: PreTrainedModel) -> bool:
    """Whether the base is small enough; it depends on nothing else, so that evaluation and serving agree."""
    return sum(weight.nbytes for weight in base.parameters()) <= MERGED_BYTES


@torch.no_grad()
def merge_adapter(base: PreTrainedModel, adapter: Path) -> PreTrainedModel:
    """The base as the adapter makes it. Only the layers that it changes are copied; the base stays as it is.

    A layer is merged in fp32 and rounded to the base's precision once.
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
