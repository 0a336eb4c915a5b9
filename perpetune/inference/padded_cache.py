"""Keys and values of conversations of different lengths, side by side, padded on the left."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.functional import pad
from transformers import DynamicCache

from perpetune.inference.prefix_cache import CachedPrefix


class PaddedCache:
    """What a model has read of several conversations: rows of one cache, which may leave it and join it.

    `attends`, shape (rows, length), is 1 where a row has a token and 0 where it is padded.
    """

    def __init__(self, layers: Sequence[tuple[torch.Tensor, torch.Tensor]], attends: torch.Tensor) -> None:
        self.cache = DynamicCache()
        for position, (keys, values) in enumerate(layers):
            self.cache.update(keys, values, position)
        self.attends = attends

    def read(self, model: torch.nn.Module, tokens: torch.Tensor, attends: torch.Tensor) -> torch.Tensor:
        """Read tokens, shape (rows, tokens), behind what was read. Logits behind the last ones, (rows, words), fp32."""
        self.attends = torch.cat([self.attends, attends], dim=1)
        positions = (self.attends.cumsum(1) - 1).clamp(min=0)[:, -tokens.shape[1] :]
        read = model(
            input_ids=tokens,
            attention_mask=self.attends,
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: torch.Tensor = read.logits[:, -1].float()
        return logits

    def keep(self, rows: Sequence[int]) -> None:
        """Leave only these rows, in this order, and no padding that all of them have. One row may be kept twice."""
        columns = torch.tensor(rows, device=self.attends.device)
        self.attends = self.attends[columns]
        first = int(self.attends.any(0).int().argmax())
        self.attends = self.attends[:, first:]
        self._change([(keys[columns, :, first:], values[columns, :, first:]) for keys, values in self._layers()])

    def join(self, other: PaddedCache) -> None:
        """Put the rows of the other behind these."""
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
    model: torch.nn.Module, beginning: CachedPrefix, prompts: Sequence[Sequence[int]], padding: int
) -> tuple[PaddedCache, torch.Tensor]:
    """Read prompts that all begin with the beginning and go on. Returns them with the logits behind each.

    The beginning is not read again, but for as many tokens at its end as a row is shorter than the longest: so
    each row is padded on its left alone, and distances among its tokens are what they are.
    """
    device = next(model.parameters()).device
    begun, longest = len(beginning), max(map(len, prompts))
    padded = [longest - len(prompt) for prompt in prompts]
    tokens = torch.tensor([[padding] * many + list(prompt) for many, prompt in zip(padded, prompts, strict=True)])
    attends = torch.tensor([[0] * many + [1] * (longest - many) for many in padded], device=device)
    layers = [
        tuple(torch.cat([_shifted(part, many) for many in padded]) for part in layer) for layer in beginning.layers
    ]
    rows = PaddedCache(layers, attends[:, :begun])  # type: ignore[arg-type]
    return rows, rows.read(model, tokens[:, begun:].to(device), attends[:, begun:])


def _shifted(part: torch.Tensor, columns: int) -> torch.Tensor:
    """Keys or values, shape (1, heads, length, width), moved to the right; what goes beyond the end falls away."""
    length = part.shape[2]
    return pad(part, (0, 0, min(columns, length), 0))[:, :, :length]
