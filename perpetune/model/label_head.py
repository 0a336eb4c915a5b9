"""A label head: which label a prompt has, from what the model makes of its tokens.

A language model that writes labels pays for each of their tokens, in training and for every answer. A head pays for the
prompt alone, however many labels there are. It is a linear layer over the last hidden states of the input: of the last
token, and their mean. It begins as a linear probe of the untrained model, so that the adapter is not distorted by the
gradients of random weights (Kumar et al. 2022, Fine-tuning can distort pretrained features, arXiv:2202.10054). While it
learns, rows of one label are drawn together and others apart (`contrast`): else the cross-entropy of few rows is soon 0
and teaches the adapter nothing more.
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

from perpetune.model.chat_format import prompt_tokens
from perpetune.model.release import LABEL_HEAD
from perpetune.records import Message, with_instruction

PENALTY = 100.0  # features outnumber rows
BOUND = 1e-3  # on the bias of a label that no row has, which nothing else holds
ITERATIONS = 100
CONTRAST = 1.0  # of the contrastive loss, beside 1 of the cross-entropy
TEMPERATURE = 0.1
TEMPERATURES = tuple(2 ** (step / 4) for step in range(-8, 13))  # of the scores, that a validation tries: 0.25 to 8


@dataclass(frozen=True)
class HeadShape:
    """The labels, in the order of the scores, and from which token of a prompt on the input begins."""

    labels: tuple[str, ...]
    input_from: int


class LabelHead(nn.Module):
    """Scores (rows, labels) of features (rows, 2 * size), which it standardises first."""

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
        """Cross-entropy of the labels (rows,), each as much as its weight (rows,); in training with the contrast."""
        losses = cross_entropy(self(features), labels, reduction="none")
        if self.training:
            losses = losses + CONTRAST * contrast(self._standard(features), labels)
        return losses.mul(weights).sum()

    def losses_by_temperature(self, features: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
        """The weighted sum of the cross-entropy of scores divided by each of `TEMPERATURES`, (temperatures,)."""
        scores = self(features)
        losses = [cross_entropy(scores / temperature, labels, reduction="none") for temperature in TEMPERATURES]
        return torch.stack(losses).mul(weights).sum(-1)


def contrast(vectors: Tensor, labels: Tensor) -> Tensor:
    """The supervised contrastive loss of each row (rows,), given vectors (rows, size) and labels (rows,).

    Minus the mean log-probability of the other rows of its label, among all other rows, if they are drawn by
    exp(cosine / `TEMPERATURE`); 0 for a row that is alone with its label (Khosla et al. 2020, arXiv:2004.11362; beside
    cross-entropy, in the fine-tuning of language models, Gunel et al. 2021, arXiv:2011.01403).
    """
    unit = normalize(vectors, dim=-1)
    itself = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    alike = (labels[:, None] == labels[None]) & ~itself
    chances = (unit @ unit.T / TEMPERATURE).masked_fill(itself, torch.finfo(unit.dtype).min).log_softmax(-1)
    return -chances.masked_fill(~alike, 0.0).sum(-1) / alike.sum(-1).clamp(min=1)


def head_shape(tokenizer: PreTrainedTokenizerBase, instruction: str, labels: Sequence[str]) -> HeadShape:
    """The input begins where two prompts that differ in nothing else do."""
    one, other = (
        prompt_tokens(tokenizer, with_instruction(instruction, (Message(role="user", content=text),))) for text in "a0"
    )
    alike = next((position for position, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), 0)
    return HeadShape(tuple(labels), alike)


def features(hidden: Tensor, positions: Sequence[Sequence[int]], input_from: int) -> Tensor:
    """Of prompts whose tokens have these places in `hidden` (n, size): the mean of the input and the last, in fp32.

    A prompt that ends before `input_from` has its last token alone as input.
    """
    rows = []
    for path in positions:
        own = hidden[list(path[min(input_from, len(path) - 1) :])].float()
        rows.append(torch.cat([own.mean(0), own[-1]]))
    return torch.stack(rows)


def fit_probe(head: LabelHead, found: Tensor, labels: Sequence[int], weights: Sequence[float]) -> None:
    """Set the head to a logistic regression on features of the untrained model, (rows, 2 * size).

    It minimises the weighted cross-entropy and `PENALTY` / 2 times the squares of all weights but the biases.
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
        loss: Tensor = errors + PENALTY / 2 * weight.square().sum() + BOUND * bias.square().sum()
        loss.backward()
        return loss

    search.step(objective)
    with torch.no_grad():
        head.weight.copy_(weight)
        head.bias.copy_(bias)


def save_head(folder: Path, head: LabelHead, tensors: dict[str, Tensor]) -> None:
    """Write it beside the adapter; `tensors` are its weight and bias, whole."""
    kept = {"mean": head.mean.cpu(), "scale": head.scale.cpu(), **tensors}
    # One entry of metadata: safetensors writes several in an order of its own, and equal heads have one digest.
    shape = {"shape": json.dumps(asdict(head.shape))}
    save_file({name: tensor.detach().contiguous() for name, tensor in kept.items()}, folder / LABEL_HEAD, shape)


def load_head(folder: Path, device: torch.device) -> LabelHead | None:
    """What `save_head` wrote; None if the version writes its labels as text."""
    if not (folder / LABEL_HEAD).is_file():
        return None
    with safe_open(folder / LABEL_HEAD, "pt") as file:
        shape = json.loads(file.metadata()["shape"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no mapping
    head = LabelHead(HeadShape(tuple(shape["labels"]), shape["input_from"]), len(tensors["mean"]) // 2)
    head.load_state_dict(tensors)
    return head.to(device).eval()
