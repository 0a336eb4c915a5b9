"""How likely is each label? All labels of many inputs in one packed pass."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from perpetune.training.packing import model_inputs, plant

# Rows of logits held at once: 256 x 50,000 words are 51 MB in fp32.
LOGIT_ROWS = 256


@torch.inference_mode()
def label_log_probabilities(
    model: torch.nn.Module, prompts: Sequence[Sequence[int]], labels: Sequence[Sequence[int]]
) -> torch.Tensor:
    """log p(label | prompt), shape (prompts, labels), labels given as tokens with their end-of-turn token.

    Equal to scoring each label behind each prompt alone; what prompts share and what labels share is
    computed once.
    """
    rows = [(*prompt, *label[:-1]) for prompt in prompts for label in labels]
    starts = [len(prompt) - 1 for prompt in prompts for _ in labels]
    tree = plant(rows)
    pairs = [
        list(zip(path[start:], label, strict=True))
        for path, start, label in zip(tree.paths, starts, list(labels) * len(prompts), strict=True)
    ]
    places = sorted({place for pair in pairs for place, _ in pair})
    device = next(model.parameters()).device
    hidden = _hidden_at(model, model_inputs(tree, device, model.dtype), places)  # type: ignore[arg-type]
    found = _token_log_probabilities(model, hidden, places, {step for pair in pairs for step in pair})
    scores = [sum(found[step] for step in pair) for pair in pairs]
    return torch.tensor(scores).view(len(prompts), len(labels))


def _hidden_at(model: torch.nn.Module, inputs: dict[str, torch.Tensor], places: Sequence[int]) -> torch.Tensor:
    decoder = model.get_decoder()  # type: ignore[operator]
    hidden: torch.Tensor = decoder(**inputs).last_hidden_state[0]
    return hidden[torch.tensor(places, device=hidden.device)]


def _token_log_probabilities(
    model: torch.nn.Module, hidden: torch.Tensor, places: Sequence[int], steps: set[tuple[int, int]]
) -> dict[tuple[int, int], float]:
    """log p(token | its place) for the steps asked for, without holding all logits at once."""
    head = model.get_output_embeddings()  # type: ignore[operator]
    wanted: dict[int, list[int]] = {}
    for place, token in steps:
        wanted.setdefault(place, []).append(token)
    found: dict[tuple[int, int], float] = {}
    for first in range(0, len(places), LOGIT_ROWS):
        chunk = places[first : first + LOGIT_ROWS]
        logits = head(hidden[first : first + LOGIT_ROWS]).float()
        normalizers = logits.logsumexp(-1)
        rows = torch.tensor([row for row, place in enumerate(chunk) for _ in wanted[place]], device=logits.device)
        tokens = torch.tensor([token for place in chunk for token in wanted[place]], device=logits.device)
        values = (logits[rows, tokens] - normalizers[rows]).tolist()
        keys = [(place, token) for place in chunk for token in wanted[place]]
        found.update(zip(keys, values, strict=True))
    return found
