"""A label head: a linear classifier of a prompt's label on the model's hidden states.

A model that generates labels computes all of their tokens, in training and for every answer; a head needs the prompt only,
whatever the number of labels. It is a linear layer over the hidden state of the last token and the mean over the input. It
is initialised as a linear probe of the untrained model, so that gradients of random weights do not distort the adapter
(Kumar et al. 2022, Fine-tuning can distort pretrained features, arXiv:2202.10054). A contrastive loss (`contrast`) is
added, because the cross-entropy of few rows soon reaches 0.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear, normalize
from transformers import PreTrainedTokenizerBase

from perpetune.model.chat.chat_format import prompt_tokens
from perpetune.model.release import LABEL_HEAD
from perpetune.records import Message, with_instruction

PENALTY = 100.0  # L2, because features outnumber rows
BIAS_PENALTY = 1e-3  # bounds the bias of a label without rows
ITERATIONS = 100
CONTRAST = 1.0  # weight of the contrastive loss, relative to the cross-entropy
TEMPERATURE = 0.1
TEMPERATURES = tuple(2 ** (step / 4) for step in range(-8, 13))  # tried in validation: 0.25 to 8


@dataclass(frozen=True)
class HeadShape:
    """The labels in the order of the scores, and the position of the first input token in a prompt."""

    labels: tuple[str, ...]
    input_from: int


class LabelHead(nn.Module):
    """A linear layer from standardised features (rows, 2 * size) to scores (rows, labels)."""

    mean: Tensor
    scale: Tensor

    def __init__(self, shape: HeadShape, size: int) -> None:
        super().__init__()
        self.shape = shape
        self.weight = nn.Parameter(torch.zeros(len(shape.labels), 2 * size))
        self.bias = nn.Parameter(torch.zeros(len(shape.labels)))
        self.register_buffer("mean", torch.zeros(2 * size), persistent=True)
        self.register_buffer("scale", torch.ones(2 * size), persistent=True)

    def forward(self, features: Tensor) -> Tensor:
        return linear(self._standard(features), self.weight, self.bias)

    def _standard(self, features: Tensor) -> Tensor:
        return (features - self.mean) / self.scale

    def summed_loss(self, features: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
        """Weighted sum of the cross-entropy of the labels (rows,), in training plus the contrastive loss."""
        losses = cross_entropy(self(features), labels, reduction="none")
        if self.training:
            losses = losses + CONTRAST * contrast(self._standard(features), labels)
        return losses.mul(weights).sum()

    def losses_by_temperature(self, features: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
        """Weighted sum of the cross-entropy at each of `TEMPERATURES`, shape (temperatures,)."""
        scores = self(features)
        losses = [cross_entropy(scores / temperature, labels, reduction="none") for temperature in TEMPERATURES]
        return torch.stack(losses).mul(weights).sum(-1)


def contrast(vectors: Tensor, labels: Tensor) -> Tensor:
    """The supervised contrastive loss of each row (rows,) for vectors (rows, size) and labels (rows,).

    It is minus the mean log-softmax of cosine / `TEMPERATURE` over the other rows with the same label; 0 if there are none
    (Khosla et al. 2020, arXiv:2004.11362; with cross-entropy in fine-tuning: Gunel et al. 2021, arXiv:2011.01403).
    """
    unit = normalize(vectors, dim=-1)
    diagonal = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    same = (labels[:, None] == labels[None]) & ~diagonal
    logprobs = (unit @ unit.T / TEMPERATURE).masked_fill(diagonal, torch.finfo(unit.dtype).min).log_softmax(-1)
    return -logprobs.masked_fill(~same, 0.0).sum(-1) / same.sum(-1).clamp(min=1)


def head_shape(tokenizer: PreTrainedTokenizerBase, instruction: str, labels: Sequence[str]) -> HeadShape:
    """The shape of a head; the input begins at the first token where prompts with different inputs differ."""
    one, other = (
        prompt_tokens(tokenizer, with_instruction(instruction, (Message(role="user", content=text),))) for text in "a0"
    )
    input_from = next((position for position, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), 0)
    return HeadShape(tuple(labels), input_from)


def features(hidden: Tensor, positions: Sequence[Sequence[int]], input_from: int) -> Tensor:
    """Features (rows, 2 * size) in fp32 of prompts with token positions in `hidden` (n, size): input mean and last token.

    If a prompt ends before `input_from`, its input is the last token.
    """
    rows = []
    for path in positions:
        inputs = hidden[list(path[min(input_from, len(path) - 1) :])].float()
        rows.append(torch.cat([inputs.mean(0), inputs[-1]]))
    return torch.stack(rows)


def fit_probe(head: LabelHead, found: Tensor, labels: Sequence[int], weights: Sequence[float]) -> None:
    """Fit the head as a logistic regression on features (rows, 2 * size) of the untrained model.

    It minimises the weighted cross-entropy plus `PENALTY` / 2 times the squared weights (L2, without biases).
    """
    with torch.no_grad():
        head.mean.copy_(found.mean(0))
        head.scale.copy_(found.std(0, correction=0).clamp(min=1e-6))
    device = head.mean.device
    standard = ((found.to(device) - head.mean) / head.scale).double()
    wanted = torch.tensor(labels, device=device)
    counts = torch.tensor(weights, device=device, dtype=torch.float64)
    weight, bias = (nn.Parameter(torch.zeros_like(part, dtype=torch.float64)) for part in (head.weight, head.bias))
    search = torch.optim.LBFGS([weight, bias], max_iter=ITERATIONS, line_search_fn="strong_wolfe")

    def objective() -> Tensor:
        search.zero_grad()
        errors = cross_entropy(linear(standard, weight, bias), wanted, reduction="none").mul(counts).sum()
        loss: Tensor = errors + PENALTY / 2 * weight.square().sum() + BIAS_PENALTY * bias.square().sum()
        loss.backward()
        return loss

    search.step(objective)
    with torch.no_grad():
        head.weight.copy_(weight)
        head.bias.copy_(bias)


def save_head(folder: Path, head: LabelHead, tensors: dict[str, Tensor]) -> None:
    """Write the head to the adapter's folder; `tensors` are its gathered weight and bias."""
    kept = {"mean": head.mean.cpu(), "scale": head.scale.cpu(), **tensors}
    # One metadata entry, because safetensors writes several in random order, and equal heads must have equal digests.
    shape = {"shape": json.dumps(asdict(head.shape))}
    save_file({name: tensor.detach().contiguous() for name, tensor in kept.items()}, folder / LABEL_HEAD, shape)


def load_head(folder: Path, device: torch.device) -> LabelHead | None:
    """Load a head that `save_head` wrote; None if the version has none."""
    if not (folder / LABEL_HEAD).is_file():
        return None
    with safe_open(folder / LABEL_HEAD, "pt") as file:
        shape = json.loads(file.metadata()["shape"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a mapping
    head = LabelHead(HeadShape(tuple(shape["labels"]), shape["input_from"]), len(tensors["mean"]) // 2)
    head.load_state_dict(tensors)
    return head.to(device).eval()
