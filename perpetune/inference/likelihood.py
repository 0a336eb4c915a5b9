"""The mean token loss of texts, with shared prefixes computed once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from perpetune.inference.prefix_cache import EMPTY_PREFIX, forward_tree
from perpetune.model.loss import plain_cross_entropy
from perpetune.model.token_tree import build_tree, groups_within, parents


@dataclass(frozen=True)
class ScoredText:
    """Tokens, of which those from index `scored_from` (at least 1) are scored, each given all before it."""

    tokens: tuple[int, ...]
    scored_from: int


@torch.inference_mode()
def mean_losses(model: torch.nn.Module, texts: Sequence[ScoredText], forward_tokens: int) -> list[float]:
    """The mean loss of each text in nats per token, in forward passes of at most about `forward_tokens`."""
    found = [0.0] * len(texts)
    head = model.get_output_embeddings()  # type: ignore[operator]
    read = [text.tokens[:-1] for text in texts]
    for run in groups_within(read, forward_tokens):
        tree = build_tree(read[position] for position in run)
        _, hidden = forward_tree(model, EMPTY_PREFIX, tree.tokens.tolist(), parents(tree))
        for position, path in zip(run, tree.paths, strict=True):
            text = texts[position]
            targets = torch.tensor(text.tokens[text.scored_from :], device=hidden.device)
            seen = hidden[list(path[text.scored_from - 1 :])]
            total = plain_cross_entropy(head(seen), targets, torch.ones(len(targets), device=hidden.device))
            found[position] = float(total) / len(targets)
    return found
