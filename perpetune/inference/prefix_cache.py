"""Reading token trees pass by pass: what has been read is not read again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from transformers import DynamicCache

from perpetune.model.token_tree import Tree, parents

# Beginnings kept between calls hold at most so many tokens: 94 MB of keys and values for SmolLM2, 540 MB for Llama 3 8B.
MAX_CACHED_TOKENS = 4096


@dataclass(frozen=True, eq=False)
class CachedPrefix:
    """A token tree of n tokens that a model has read.

    `layers` holds the keys and values of each layer, both of shape (1, heads, n, width). `sees`, shape (n, n),
    says whether the token of the row attends to that of the column, and `depths`, shape (n,), are positions.
    """

    layers: tuple[tuple[torch.Tensor, torch.Tensor], ...]
    sees: npt.NDArray[np.bool_]
    depths: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.depths)


EMPTY_PREFIX = CachedPrefix((), np.zeros((0, 0), dtype=np.bool_), np.zeros(0, dtype=np.int64))


@torch.inference_mode()
def forward_tree(
    model: torch.nn.Module, before: CachedPrefix, tokens: Sequence[int], parents: Sequence[int]
) -> tuple[CachedPrefix, torch.Tensor]:
    """Read more tokens of a tree; parents, which come before their children, are places in it (-1: there is none).

    Returns the tree with the new tokens at its end, and their last hidden states, shape (tokens, width).
    `before` stays as it was, so that any number of trees can grow from it.
    """
    sees, depths = _extended(before, parents)
    device: torch.device = next(model.parameters()).device
    dtype: torch.dtype = model.dtype  # type: ignore[assignment]
    hides = torch.from_numpy(~sees[len(before) :]).to(device)
    cache = DynamicCache()
    for layer, (keys, values) in enumerate(before.layers):
        cache.update(keys, values, layer)
    decoder = model.get_decoder()  # type: ignore[operator]
    hidden: torch.Tensor = decoder(
        input_ids=torch.tensor([list(tokens)], device=device),
        position_ids=torch.from_numpy(depths[len(before) :]).to(device)[None],
        attention_mask=torch.zeros(hides.shape, dtype=dtype, device=device).masked_fill_(hides, torch.finfo(dtype).min)[
            None, None
        ],
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state[0]
    layers = tuple((layer.keys, layer.values) for layer in cache.layers)  # type: ignore[union-attr]
    return CachedPrefix(layers, sees, depths), hidden  # type: ignore[arg-type]


def _extended(before: CachedPrefix, parents: Sequence[int]) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    old, size = len(before), len(before) + len(parents)
    sees = np.zeros((size, size), dtype=np.bool_)
    sees[:old, :old] = before.sees
    depths = np.zeros(size, dtype=np.int64)
    depths[:old] = before.depths
    for position, parent in enumerate(parents, start=old):
        if parent >= 0:
            sees[position] = sees[parent]
            depths[position] = depths[parent] + 1
        sees[position, position] = True
    return sees, depths


def parents_after(beginning: CachedPrefix, tree: Tree) -> list[int]:
    """The parents of a tree that grows from the end of the beginning."""
    last = len(beginning) - 1
    return [last if parent < 0 else len(beginning) + parent for parent in parents(tree)]


class PrefixCache:
    """What prompts begin with, read once and kept between calls; the least recently used are let go."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str | None, tuple[int, ...]], CachedPrefix] = OrderedDict()

    def read(self, model: torch.nn.Module, adapter: str | None, tokens: tuple[int, ...]) -> CachedPrefix:
        """The tokens as the model reads them while `adapter` is active."""
        if not tokens:
            return EMPTY_PREFIX
        reading = self._kept.pop((adapter, tokens), None)
        if reading is None:
            reading, _ = forward_tree(model, EMPTY_PREFIX, tokens, range(-1, len(tokens) - 1))
        self._kept[adapter, tokens] = reading
        while sum(map(len, self._kept.values())) > MAX_CACHED_TOKENS:
            self._kept.popitem(last=False)
        return reading

    def forget(self, adapter: str) -> None:
        """Let go of all that was read with the adapter: its name may come to mean other weights."""
        for key in [key for key in self._kept if key[0] == adapter]:
            del self._kept[key]
