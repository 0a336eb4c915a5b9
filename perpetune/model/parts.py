"""The parts of a causal language model of transformers, whatever its architecture calls them."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn
from transformers import PreTrainedConfig

LENGTHS = ("max_position_embeddings", "max_seq_len", "seq_length", "n_ctx")


def decoder_of(model: nn.Module) -> nn.Module:
    """The module from tokens to last hidden states."""
    decoder = cast(Any, model).get_decoder()
    return cast(nn.Module, cast(Any, model).model if decoder is model else decoder)


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """The layers, one after the other."""
    stacks = [part for part in decoder_of(model).modules() if isinstance(part, nn.ModuleList)]
    return list(max(stacks, key=len, default=nn.ModuleList()))


def hidden_width(model: nn.Module) -> int:
    """The width of the last hidden states, which in a few architectures is not that of the layers."""
    weight: Tensor = cast(Any, model).get_output_embeddings().weight
    return int(weight.shape[1])


def context_length(config: PreTrainedConfig) -> int | None:
    """The longest sequence in tokens that the model can read; None if it has no limit, as a state space."""
    text = config.get_text_config()
    return next((int(length) for name in LENGTHS if (length := getattr(text, name, None))), None)
