"""The labels of prompts by a label head: the prompt is read once, however many labels there are."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from perpetune.inference.prefix_cache import CachedPrefix, forward_tree, parents_after
from perpetune.model.label_head import LabelHead, features
from perpetune.model.token_tree import build_tree


@torch.inference_mode()
def head_probabilities(
    model: torch.nn.Module,
    head: LabelHead,
    prompts: Sequence[Sequence[int]],
    labels: Sequence[str],
    beginning: CachedPrefix,
) -> list[list[float]]:
    """p(label) of each prompt, among `labels`; the prompts go on where the beginning ends.

    The beginning must not reach into the input, of which the head reads every token (see `before_input`).
    """
    tree = build_tree(prompts)
    _, hidden = forward_tree(model, beginning, tree.tokens.tolist(), parents_after(beginning, tree))
    found = features(hidden, tree.paths, max(0, head.shape.input_from - len(beginning)))
    known = {label: position for position, label in enumerate(head.shape.labels)}
    scores: torch.Tensor = head(found)[:, [known[label] for label in labels]]
    return scores.softmax(-1).tolist()


def before_input(head: LabelHead, beginning: tuple[int, ...]) -> tuple[int, ...]:
    """What of a beginning that prompts share may be read before them."""
    return beginning[: head.shape.input_from]
