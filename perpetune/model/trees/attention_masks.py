"""Attention masks of token trees for each kind of attention layer: full, in a sliding window, or in chunks.

A window or chunk counts the tokens of a row, so in a tree it counts depths and not positions.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedConfig

FULL, SLIDING, CHUNKED = "full_attention", "sliding_attention", "chunked_attention"


def sliding_window(config: PreTrainedConfig) -> int | None:
    """The tokens that a layer with a sliding window attends to, its own included; None if no layer has one."""
    text: Any = config.get_text_config()
    if not hasattr(type(text), "sliding_window"):
        return None  # the architecture ignores what some configs say
    window = text.sliding_window
    kinds = layer_kinds(config)
    return int(window) if window and (not kinds or SLIDING in kinds) else None


def layer_kinds(config: PreTrainedConfig) -> frozenset[str]:
    """The kinds of the model's layers as its config names them; empty if it does not."""
    text: Any = config.get_text_config()
    return frozenset(getattr(text, "layer_types", None) or ())


def restricted(visible: Tensor, queries: Tensor, keys: Tensor, config: PreTrainedConfig, kind: str) -> Tensor:
    """`visible` (queries, keys) less what a layer of this kind does not attend to; depths (queries,) and (keys,)."""
    text: Any = config.get_text_config()
    if kind == SLIDING:
        return visible & (queries[:, None] - keys < int(text.sliding_window))
    if kind == CHUNKED:
        chunk = int(text.attention_chunk_size)
        return visible & (queries[:, None] // chunk == keys // chunk)
    return visible


def attention_masks(
    config: PreTrainedConfig, visible: Tensor, queries: Tensor, keys: Tensor, dtype: torch.dtype
) -> Tensor | dict[str, Tensor]:
    """Additive masks (1, 1, queries, keys) as transformers takes them: one for all layers, or one for each kind.

    `visible` (queries, keys) is true between a token and its ancestors; `queries` and `keys` are depths.
    """
    kinds = layer_kinds(config)
    if kinds & {SLIDING, CHUNKED}:
        return {kind: _additive(restricted(visible, queries, keys, config, kind), dtype) for kind in kinds}
    kind = SLIDING if sliding_window(config) else FULL
    return _additive(restricted(visible, queries, keys, config, kind), dtype)


def _additive(visible: Tensor, dtype: torch.dtype) -> Tensor:
    mask = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
    return mask.masked_fill_(~visible, torch.finfo(dtype).min)[None, None]
