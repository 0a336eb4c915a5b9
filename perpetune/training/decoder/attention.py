"""Attention over a token tree: each token attends to itself and its ancestors.

In preorder, the ancestors of a block of tokens are in the block itself or among the few whose subtree is not finished at
its start. On a CPU each block of queries therefore multiplies with those keys only; on a GPU FlexAttention (Dong et al.
2024, arXiv:2412.05496) skips masked blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from perpetune.model.trees.token_tree import Tree, is_visible

BLOCK = 128
_MIN_HEAD = 16  # smallest head size of FlexAttention's GPU kernel


@dataclass(frozen=True)
class Block:
    """The queries `first` to `last` - 1, the positions of their keys (k,), and the additive mask (queries, k)."""

    first: int
    last: int
    keys: Tensor
    mask: Tensor


@dataclass(frozen=True)
class AttentionPlan:
    """The attention mask for the device: blocks on a CPU, FlexAttention's block mask on a GPU."""

    blocks: tuple[Block, ...]
    flex: Any = None


def plan(tree: Tree, device: torch.device, dtype: torch.dtype, window: int | None = None) -> AttentionPlan:
    """The plan of a layer that attends to `window` tokens of a row, its own included; None for all."""
    if device.type == "cuda":
        return AttentionPlan((), _flex_mask(tree, device, window))
    return AttentionPlan(tuple(_block(tree, first, dtype, window) for first in range(0, len(tree), BLOCK)))


def _block(tree: Tree, first: int, dtype: torch.dtype, window: int | None) -> Block:
    last = min(first + BLOCK, len(tree))
    unfinished = np.nonzero(tree.ends[:first] > first)[0]
    if window is not None:
        unfinished = unfinished[tree.depths[first:last].min() - tree.depths[unfinished] < window]
    keys = np.concatenate([unfinished, np.arange(first, last)])
    visible = torch.from_numpy(is_visible(tree, np.arange(first, last), keys, window))
    mask = torch.zeros(visible.shape, dtype=dtype).masked_fill_(~visible, torch.finfo(dtype).min)
    return Block(first, last, torch.from_numpy(keys), mask)


def attend(q: Tensor, k: Tensor, v: Tensor, scale: float, plan: AttentionPlan) -> Tensor:
    """Attention of q (n, heads, size) to k and v (n, key heads, size); returns (n, heads, size)."""
    if plan.flex is not None:
        return _flex(q, k, v, scale, plan.flex)
    result: Tensor = _Blocked.apply(q, k, v, scale, plan.blocks)  # type: ignore[no-untyped-call]
    return result


class _Blocked(torch.autograd.Function):
    """Softmax attention with grouped queries: heads with the same key head are rows of one product."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, scale: float, blocks: tuple[Block, ...]) -> Tensor:
        out = torch.empty_like(q)
        weights = []
        for block in blocks:
            scores = torch.bmm(_grouped(q, block, k.shape[1]), k[block.keys].permute(1, 2, 0))
            shaped = scores.view(k.shape[1], -1, *block.mask.shape)
            shaped.mul_(scale).add_(block.mask)
            weight = scores.softmax(-1)
            _ungroup(out, block, torch.bmm(weight, v[block.keys].transpose(0, 1)))
            weights.append(weight)
        ctx.save_for_backward(q, k, v, *weights)
        ctx.scale, ctx.blocks = scale, blocks
        return out

    @staticmethod
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        q, k, v, *weights = ctx.saved_tensors
        dq = torch.empty_like(q)
        # Many blocks add to the shared prefix: in fp32, so that small terms are not rounded away.
        dk, dv = (torch.zeros(k.shape, dtype=torch.float32) for _ in range(2))
        for block, weight in zip(ctx.blocks, weights, strict=True):
            keys, values = k[block.keys].transpose(0, 1), v[block.keys].permute(1, 2, 0)
            given = _grouped(d_out, block, k.shape[1])
            d_weight = torch.bmm(given, values)
            d_scores = torch.ops.aten._softmax_backward_data(d_weight, weight, -1, weight.dtype).mul_(ctx.scale)
            _ungroup(dq, block, torch.bmm(d_scores, keys))
            queries = _grouped(q, block, k.shape[1])
            dk.index_add_(0, block.keys, torch.bmm(d_scores.transpose(1, 2), queries).transpose(0, 1).float())
            dv.index_add_(0, block.keys, torch.bmm(weight.transpose(1, 2), given).transpose(0, 1).float())
        return dq, dk.to(k.dtype), dv.to(v.dtype), None, None


def _grouped(x: Tensor, block: Block, key_heads: int) -> Tensor:
    """The block's rows of x (n, heads, size) as (key heads, heads per key head * queries, size)."""
    rows = x[block.first : block.last]
    queries, heads, size = rows.shape
    by_key_head = rows.view(queries, key_heads, heads // key_heads, size).permute(1, 2, 0, 3)
    return by_key_head.reshape(key_heads, -1, size)


def _ungroup(x: Tensor, block: Block, value: Tensor) -> None:
    """The inverse of `_grouped`: write the value to the block's rows of x."""
    key_heads, _, size = value.shape
    rows = x[block.first : block.last]
    rows.view(len(rows), key_heads, -1, size).copy_(value.view(key_heads, -1, len(rows), size).permute(2, 0, 1, 3))


def _flex_mask(tree: Tree, device: torch.device, window: int | None = None) -> Any:
    from torch.nn.attention.flex_attention import create_block_mask

    ends, depths = torch.from_numpy(tree.ends).to(device), torch.from_numpy(tree.depths).to(device)

    def visible(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key <= query) & (query < ends[key])

    def visible_in_window(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        assert window is not None
        return visible(batch, head, query, key) & (depths[query] - depths[key] < window)

    return create_block_mask(
        visible if window is None else visible_in_window, None, None, len(tree), len(tree), device=str(device)
    )


def _flex(q: Tensor, k: Tensor, v: Tensor, scale: float, mask: Any) -> Tensor:
    missing = max(0, _MIN_HEAD - q.shape[-1])  # zero padding changes neither scores nor output
    heads_first = [pad(x, (0, missing)).transpose(0, 1)[None] for x in (q, k, v)]
    out: Tensor = _compiled_flex()(*heads_first, block_mask=mask, scale=scale, enable_gqa=True)
    return out[0, ..., : v.shape[-1]].transpose(0, 1)


@cache
def _compiled_flex() -> Any:
    """Compiled at the first use, because importing Triton takes seconds and a CPU does not need it."""
    from torch.nn.attention.flex_attention import flex_attention

    # Not dynamic=True: only n changes, and Triton needs the numbers of heads as constants.
    return torch.compile(flex_attention)
