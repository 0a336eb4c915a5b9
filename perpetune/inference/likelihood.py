"""The mean token loss of texts, with shared prefixes computed once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from perpetune.inference.caches.prefix_cache import EMPTY_PREFIX, tree_logits
from perpetune.inference.labels.label_scoring import logit_rows
from perpetune.inference.not_a_number import NotANumber
from perpetune.model.loss import plain_cross_entropy
from perpetune.model.trees.token_tree import build_tree, groups_within, parents


@dataclass(frozen=True)
class ScoredText:
    """Tokens, of which those from index `scored_from` (at least 1) are scored, each given all before it."""

    tokens: tuple[int, ...]
    scored_from: int


@torch.inference_mode()
def mean_losses(model: torch.nn.Module, texts: Sequence[ScoredText], forward_tokens: int) -> list[float]:
    """The mean loss of each text in nats per token, in forward passes of at most about `forward_tokens`."""
    found = [0.0] * len(texts)
    read = [text.tokens[:-1] for text in texts]
    for run in groups_within(read, min(forward_tokens, logit_rows(model))):
        tree = build_tree(read[position] for position in run)
        scored = [path[texts[position].scored_from - 1 :] for position, path in zip(run, tree.paths, strict=True)]
        wanted = sorted({node for path in scored for node in path})
        row_of = {node: row for row, node in enumerate(wanted)}
        _, logits = tree_logits(model, EMPTY_PREFIX, tree.tokens.tolist(), parents(tree), wanted)
        for position, path in zip(run, scored, strict=True):
            found[position] = mean_loss(logits[[row_of[node] for node in path]], texts[position])
    return found


def mean_loss(logits: torch.Tensor, text: ScoredText) -> float:
    """The mean loss of a text whose scored tokens are predicted by these logits (scored tokens, vocabulary).

    Raises NotANumber if it is not finite.
    """
    targets = torch.tensor(text.tokens[text.scored_from :], device=logits.device)
    total = float(plain_cross_entropy(logits, targets, torch.ones(len(targets), device=logits.device)))
    if not math.isfinite(total):
        raise NotANumber("the text's scores")
    return total / len(targets)
