"""Scores of rows that are read one by one, because their model cannot read token trees (`packing.longest_in_tree`)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, cast

import torch

from perpetune.inference.labels.label_scoring import log_probabilities
from perpetune.inference.likelihood import ScoredText, mean_loss
from perpetune.model.label_head import LabelHead, features
from perpetune.model.parts import decoder_of, logits_at


@torch.inference_mode()
def row_label_log_probabilities(
    model: torch.nn.Module, prompt: Sequence[int], labels: Sequence[Sequence[int]], forward_tokens: int
) -> torch.Tensor:
    """log p(label | prompt), shape (labels,); labels are tokens with their end-of-turn token.

    Labels of the same number of tokens are rows of one batch, so that no row is padded.
    """
    scores = torch.zeros(len(labels), dtype=torch.float64)
    of_length: dict[int, list[int]] = defaultdict(list)
    for position, label in enumerate(labels):
        of_length[len(label)].append(position)
    for count, same in of_length.items():
        at_once = max(1, forward_tokens // (len(prompt) + count))
        for first in range(0, len(same), at_once):
            batch = same[first : first + at_once]
            rows = [(*prompt, *labels[position][:-1]) for position in batch]
            logits = _logits(model, rows, count)
            for position, of_row in zip(batch, logits, strict=True):
                scores[position] = sum(log_probabilities(of_row, list(enumerate(labels[position]))))
    return scores


@torch.inference_mode()
def row_head_probabilities(
    model: torch.nn.Module, head: LabelHead, prompt: Sequence[int], labels: Sequence[str]
) -> list[float]:
    """p(label) by the label head, among `labels`."""
    ids = torch.tensor([list(prompt)], device=next(model.parameters()).device)
    hidden = cast(Any, decoder_of(model))(input_ids=ids, use_cache=False).last_hidden_state[0]
    scores = head(features(hidden, [range(len(prompt))], head.shape.input_from))[0]
    known = {label: position for position, label in enumerate(head.shape.labels)}
    found: list[float] = scores[[known[label] for label in labels]].softmax(-1).tolist()
    return found


@torch.inference_mode()
def row_mean_loss(model: torch.nn.Module, text: ScoredText) -> float:
    """The mean loss of a text in nats per token."""
    [logits] = _logits(model, [text.tokens[:-1]], len(text.tokens) - text.scored_from)
    return mean_loss(logits, text)


def _logits(model: torch.nn.Module, rows: Sequence[Sequence[int]], last: int) -> torch.Tensor:
    """The logits of the last tokens of rows of the same length, shape (rows, last, vocabulary)."""
    ids = torch.tensor([list(row) for row in rows], device=next(model.parameters()).device)
    return logits_at(model, last, {"input_ids": ids, "use_cache": False})
