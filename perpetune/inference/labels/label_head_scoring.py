"""Label probabilities from a label head: one forward pass a prompt, for any number of labels."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from perpetune.inference.caches.prefix_cache import CachedPrefix, forward_tree, parents_after
from perpetune.model.label_head import LabelHead, features
from perpetune.model.trees.token_tree import build_tree


@torch.inference_mode()
def head_probabilities(
    model: torch.nn.Module,
    head: LabelHead,
    prompts: Sequence[Sequence[int]],
    labels: Sequence[str],
    prefix: CachedPrefix,
) -> list[list[float]]:
    """p(label) of each prompt, among `labels`; `prompts` are the tokens after `prefix`.

    The prefix must end before the input, because the head pools over all of the input's tokens (see `before_input`).
    """
    tree = build_tree(prompts)
    _, hidden = forward_tree(model, prefix, tree.tokens.tolist(), parents_after(prefix, tree))
    found = features(hidden, tree.paths, max(0, head.shape.input_from - len(prefix)))
    known = {label: position for position, label in enumerate(head.shape.labels)}
    scores: torch.Tensor = head(found)[:, [known[label] for label in labels]]
    return scores.softmax(-1).tolist()


def before_input(head: LabelHead, prefix: tuple[int, ...]) -> tuple[int, ...]:
    """The part of a shared prefix that ends before the input."""
    return prefix[: head.shape.input_from]
