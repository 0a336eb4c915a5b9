"""Incremental forward passes over token trees, and a cache of prompt prefixes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from transformers import DynamicCache

from perpetune.model.parts import decoder_of, logits_at
from perpetune.model.trees.attention_masks import attention_masks
from perpetune.model.trees.token_tree import Tree, parents

# Tokens cached between calls: 94 MB of keys and values for SmolLM2, 540 MB for Llama 3 8B.
MAX_CACHED_TOKENS = 4096


@dataclass(frozen=True, eq=False)
class CachedPrefix:
    """The key-value cache of a token tree of n tokens.

    `layers` holds the keys and values of each layer, both of shape (1, heads, n, width). `visible`, shape (n, n), is
    true if the row's token attends to the column's token; `depths`, shape (n,), are position ids.
    """

    layers: tuple[tuple[torch.Tensor, torch.Tensor], ...]
    visible: npt.NDArray[np.bool_]
    depths: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.depths)


EMPTY_PREFIX = CachedPrefix((), np.zeros((0, 0), dtype=np.bool_), np.zeros(0, dtype=np.int64))


@torch.inference_mode()
def forward_tree(
    model: torch.nn.Module, before: CachedPrefix, tokens: Sequence[int], parents: Sequence[int]
) -> tuple[CachedPrefix, torch.Tensor]:
    """Run one forward pass over new tokens of a tree. Parents are indices into the tree (-1: none) and come first.

    Returns the tree with the new tokens appended, and their last hidden states, shape (tokens, width). `before` is not
    changed, so that several trees can extend it.
    """
    inputs = _inputs(model, before, tokens, parents)
    hidden: torch.Tensor = decoder_of(model)(**inputs.arguments).last_hidden_state[0]
    return inputs.cached(), hidden


@torch.inference_mode()
def tree_logits(
    model: torch.nn.Module, before: CachedPrefix, tokens: Sequence[int], parents: Sequence[int], wanted: Sequence[int]
) -> tuple[CachedPrefix, torch.Tensor]:
    """`forward_tree` with the logits (wanted, vocabulary) at `wanted` new tokens instead of hidden states."""
    inputs = _inputs(model, before, tokens, parents)
    kept = torch.tensor(list(wanted), device=inputs.arguments["input_ids"].device)
    logits = logits_at(model, kept, inputs.arguments)[0]
    return inputs.cached(), logits


@dataclass(frozen=True, eq=False)
class _Inputs:
    """The arguments of a forward pass, among them the cache that it fills."""

    arguments: dict[str, Any]
    cache: DynamicCache
    visible: npt.NDArray[np.bool_]
    depths: npt.NDArray[np.int64]

    def cached(self) -> CachedPrefix:
        layers = tuple((layer.keys, layer.values) for layer in self.cache.layers)  # type: ignore[union-attr]
        return CachedPrefix(layers, self.visible, self.depths)  # type: ignore[arg-type]


def _inputs(model: torch.nn.Module, before: CachedPrefix, tokens: Sequence[int], parents: Sequence[int]) -> _Inputs:
    visible, depths = _extended(before, parents)
    device: torch.device = next(model.parameters()).device
    cache = DynamicCache()
    for layer, (keys, values) in enumerate(before.layers):
        cache.update(keys, values, layer)
    keys = torch.from_numpy(depths).to(device)
    queries = keys[len(before) :]
    config, dtype = cast(Any, model).config, cast(Any, model).dtype
    masks = attention_masks(config, torch.from_numpy(visible[len(before) :]).to(device), queries, keys, dtype)
    arguments = {
        "input_ids": torch.tensor([list(tokens)], device=device),
        "position_ids": queries[None],
        "attention_mask": masks,
        "past_key_values": cache,
        "use_cache": True,
    }
    return _Inputs(arguments, cache, visible, depths)


def _extended(before: CachedPrefix, parents: Sequence[int]) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    old, size = len(before), len(before) + len(parents)
    visible = np.zeros((size, size), dtype=np.bool_)
    visible[:old, :old] = before.visible
    depths = np.zeros(size, dtype=np.int64)
    depths[:old] = before.depths
    for position, parent in enumerate(parents, start=old):
        if parent >= 0:
            visible[position] = visible[parent]
            depths[position] = depths[parent] + 1
        visible[position, position] = True
    return visible, depths


def parents_after(prefix: CachedPrefix, tree: Tree) -> list[int]:
    """The parents of a tree that extends the prefix's last token."""
    last = len(prefix) - 1
    return [last if parent < 0 else len(prefix) + parent for parent in parents(tree)]


class PrefixCache:
    """Prompt prefixes kept between calls, with least-recently-used eviction."""

    def __init__(self) -> None:
        self._cached: OrderedDict[tuple[str | None, tuple[int, ...]], CachedPrefix] = OrderedDict()

    def get(self, model: torch.nn.Module, adapter: str | None, tokens: tuple[int, ...]) -> CachedPrefix:
        """The cache of these tokens under the active `adapter`; computed if it is missing."""
        if not tokens:
            return EMPTY_PREFIX
        cached = self._cached.pop((adapter, tokens), None)
        if cached is None:
            cached, _ = forward_tree(model, EMPTY_PREFIX, tokens, range(-1, len(tokens) - 1))
        self._cached[adapter, tokens] = cached
        while sum(map(len, self._cached.values())) > MAX_CACHED_TOKENS:
            self._cached.popitem(last=False)
        return cached

    def evict(self, adapter: str) -> None:
        """Drop the adapter's prefixes: other weights may be loaded under its name."""
        for key in [key for key in self._cached if key[0] == adapter]:
            del self._cached[key]
