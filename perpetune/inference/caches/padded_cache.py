"""A left-padded key-value cache for sequences of different lengths."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.functional import pad
from transformers import DynamicCache

from perpetune.inference.caches.prefix_cache import CachedPrefix
from perpetune.model.parts import last_logits


class PaddedCache:
    """The key-value cache of a batch, to which rows can be added and from which they can be removed.

    `attends`, shape (rows, length), is the attention mask: 1 for a token, 0 for padding.
    """

    def __init__(self, layers: Sequence[tuple[torch.Tensor, torch.Tensor]], attends: torch.Tensor) -> None:
        self.cache = DynamicCache()
        for position, (keys, values) in enumerate(layers):
            self.cache.update(keys, values, position)
        self.attends = attends

    def forward(self, model: torch.nn.Module, tokens: torch.Tensor, attends: torch.Tensor) -> torch.Tensor:
        """Append tokens, shape (rows, tokens), in a forward pass. Returns the next logits, (rows, vocabulary), fp32."""
        self.attends = torch.cat([self.attends, attends], dim=1)
        positions = (self.attends.cumsum(1) - 1).clamp(min=0)[:, -tokens.shape[1] :]
        output = model(
            input_ids=tokens,
            attention_mask=self.attends,
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
            **last_logits(model),
        )
        logits: torch.Tensor = output.logits[:, -1].float()
        return logits

    def keep(self, rows: Sequence[int]) -> None:
        """Keep only these rows, in this order, without padding common to all. A row may be kept twice."""
        columns = torch.tensor(rows, device=self.attends.device)
        self.attends = self.attends[columns]
        first = int(self.attends.any(0).int().argmax())
        self.attends = self.attends[:, first:]
        self._change([(keys[columns, :, first:], values[columns, :, first:]) for keys, values in self._layers()])

    def append(self, other: PaddedCache) -> None:
        """Append the rows of another cache."""
        length = max(self.attends.shape[1], other.attends.shape[1])
        mine, theirs = length - self.attends.shape[1], length - other.attends.shape[1]
        self.attends = torch.cat([pad(self.attends, (mine, 0)), pad(other.attends, (theirs, 0))])
        self._change(
            [
                tuple(
                    torch.cat([pad(one, (0, 0, mine, 0)), pad(two, (0, 0, theirs, 0))])
                    for one, two in zip(ours, others, strict=True)
                )
                for ours, others in zip(self._layers(), other._layers(), strict=True)
            ]
        )

    def _layers(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        return [(layer.keys, layer.values) for layer in self.cache.layers]  # type: ignore[union-attr,misc]

    def _change(self, layers: Sequence[tuple[torch.Tensor, ...]]) -> None:
        for layer, (keys, values) in zip(self.cache.layers, layers, strict=True):
            layer.keys, layer.values = keys, values  # type: ignore[union-attr]


def prefill(
    model: torch.nn.Module, prefix: CachedPrefix, prompts: Sequence[Sequence[int]], padding: int
) -> tuple[PaddedCache, torch.Tensor]:
    """Prefill prompts that all begin with `prefix`. Returns the cache and the next logits of each prompt.

    The prefix is reused, except for as many tokens at its end as a row is shorter than the longest: each row then has
    padding only on its left.
    """
    device = next(model.parameters()).device
    begun, longest = len(prefix), max(map(len, prompts))
    padded = [longest - len(prompt) for prompt in prompts]
    tokens = torch.tensor([[padding] * many + list(prompt) for many, prompt in zip(padded, prompts, strict=True)])
    attends = torch.tensor([[0] * many + [1] * (longest - many) for many in padded], device=device)
    layers = [tuple(torch.cat([_shifted(part, many) for many in padded]) for part in layer) for layer in prefix.layers]
    rows = PaddedCache(layers, attends[:, :begun])  # type: ignore[arg-type]
    return rows, rows.forward(model, tokens[:, begun:].to(device), attends[:, begun:])


def _shifted(part: torch.Tensor, columns: int) -> torch.Tensor:
    """Keys or values, shape (1, heads, length, width), shifted right by `columns`, at the same length."""
    length = part.shape[2]
    return pad(part, (0, 0, min(columns, length), 0))[:, :, :length]
