"""The parts of a causal language model of transformers, whatever its architecture calls them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, cast

from torch import Tensor, nn
from transformers import PreTrainedConfig

LENGTHS = ("max_position_embeddings", "max_seq_len", "seq_length", "n_ctx")


def decoder_of(model: nn.Module) -> nn.Module:
    """The module from tokens to last hidden states: the first of the usual places that holds the input embeddings.

    transformers' `get_decoder` returns the whole model or its output layer for some architectures.
    """
    causal = cast(Any, model)
    embeddings = causal.get_input_embeddings()
    for part in (causal.get_decoder(), causal.base_model, getattr(model, "model", None)):
        if part is not None and part is not model and any(inner is embeddings for inner in part.modules()):
            return cast(nn.Module, part)
    return model


def logits_at(model: nn.Module, positions: Tensor | int, inputs: Mapping[str, Any]) -> Tensor:
    """The logits (rows, positions, vocabulary) of a forward pass at positions, or at the last so many.

    They are those of the model's own forward pass: some architectures scale or bound what the output layer computes.
    """
    if _keeps_logits(type(model).forward):
        found: Tensor = model(**inputs, logits_to_keep=positions).logits
        return found
    everywhere: Tensor = model(**inputs).logits
    return everywhere[:, -positions:] if isinstance(positions, int) else everywhere[:, positions]


def last_logits(model: nn.Module) -> dict[str, int]:
    """Arguments of a forward pass that computes no other logits than the last, if the architecture can."""
    return {"logits_to_keep": 1} if _keeps_logits(type(model).forward) else {}


@cache
def _keeps_logits(forward: Callable[..., Any]) -> bool:
    return "logits_to_keep" in inspect.signature(forward).parameters


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """The layers, one after the other."""
    stacks = [list(part) for part in decoder_of(model).modules() if isinstance(part, nn.ModuleList)]
    return max(stacks, key=len, default=[])


def hidden_width(model: nn.Module) -> int:
    """The width of the last hidden states, which in a few architectures is not that of the layers."""
    weight: Tensor = cast(Any, model).get_output_embeddings().weight
    return int(weight.shape[1])


def context_length(config: PreTrainedConfig) -> int | None:
    """The longest sequence in tokens that the model can read; None if it has no limit, as a state space."""
    text = config.get_text_config()
    return next((int(length) for name in LENGTHS if (length := getattr(text, name, None))), None)
