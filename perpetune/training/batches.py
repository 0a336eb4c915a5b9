"""Examples as token rows, and the order in which a run reads them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from transformers import PreTrainedTokenizerBase

from perpetune.model.chat_format import answer_tokens, prompt_tokens
from perpetune.model.token_tree import build_tree, groups_within
from perpetune.params import TrainParams
from perpetune.records import Example, conversation
from perpetune.statistics.imbalance import is_imbalanced


@dataclass(frozen=True)
class Encoded:
    """One example as tokens; `tokens[answer_from:]` is what is learned, as much as `weight` says.

    With a `label`, its place among those of a label head, that is learned and not its tokens.
    """

    tokens: tuple[int, ...]
    answer_from: int
    weight: float = 1.0
    label: int | None = None

    @property
    def read(self) -> tuple[int, ...]:
        """What the model reads: a label head needs the prompt, and the last token of an answer predicts nothing."""
        return self.tokens[:-1] if self.label is None else self.tokens[: self.answer_from]

    @property
    def answer_weight(self) -> float:
        """What the answer counts for in a mean over answer tokens, or over labels."""
        return self.weight * (1 if self.label is not None else len(self.tokens) - self.answer_from)


def encode(tokenizer: PreTrainedTokenizerBase, row: Example, instruction: str) -> Encoded:
    prompt = prompt_tokens(tokenizer, conversation(instruction, row))
    return Encoded((*prompt, *answer_tokens(tokenizer, row.output)), len(prompt))


def encode_all(
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Example],
    instruction: str,
    params: TrainParams,
    labels: Sequence[str] | None = None,
) -> list[Encoded]:
    """The rows that are short enough, weighted as `train.class_weights` says.

    With the `labels` of a label head, those that have one of them.
    """
    positions = {label: position for position, label in enumerate(labels or ())}
    rows = [row for row in rows if labels is None or row.output in positions]
    weights = _balanced(rows) if _balances(rows, params) else [1.0] * len(rows)
    encoded = (
        replace(encode(tokenizer, row, instruction), weight=weight, label=positions.get(row.output))
        for row, weight in zip(rows, weights, strict=True)
    )
    return [row for row in encoded if len(row.tokens) <= params.max_example_tokens]


def _balances(rows: Sequence[Example], params: TrainParams) -> bool:
    if params.class_weights != "auto":
        return params.class_weights == "balanced"
    return is_imbalanced(Counter(row.output for row in rows))


def _balanced(rows: Sequence[Example]) -> list[float]:
    """Each label counts alike: a row's weight is rows / (labels * rows of its label), as in scikit-learn."""
    counts = Counter(row.output for row in rows)
    return [len(rows) / (len(counts) * counts[row.output]) for row in rows]


def some(rows: Sequence[Example], count: int, seed: int) -> list[Example]:
    """At most `count` of the rows, from all over: their order says where they come from."""
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)).tolist()
    return [rows[index] for index in order[:count]]


def batches(rows: Sequence[Encoded], batch_size: int, seed: int) -> Iterator[list[Encoded]]:
    """Batches without end, each epoch in a new order drawn from the seed.

    Rows for a label head come in pairs of one label, as far as they can, so that a batch has some that are alike.
    """
    generator = torch.Generator().manual_seed(seed)
    waiting: list[Encoded] = []
    while True:
        while len(waiting) < batch_size:
            waiting += _paired(
                [rows[index] for index in torch.randperm(len(rows), generator=generator).tolist()], generator
            )
        yield waiting[:batch_size]
        waiting = waiting[batch_size:]


def _paired(rows: list[Encoded], generator: torch.Generator) -> list[Encoded]:
    if rows[0].label is None:
        return rows
    by_label: dict[int | None, list[Encoded]] = defaultdict(list)
    for row in rows:
        by_label[row.label].append(row)
    pairs = [alike[start : start + 2] for alike in by_label.values() for start in range(0, len(alike), 2)]
    order = torch.randperm(len(pairs), generator=generator).tolist()
    return [row for index in order for row in pairs[index]]


def packed(rows: Sequence[Encoded], limit: int) -> list[list[Encoded]]:
    """Rows in passes of at most `limit` tokens: those of one label beside each other, else those that begin alike."""
    rows = sorted(rows, key=lambda row: (-1 if row.label is None else row.label, row.tokens))
    return [[rows[index] for index in run] for run in groups_within([row.read for row in rows], limit)]


def pass_size(rows: Sequence[Encoded]) -> int:
    """Tokens that a pass over these rows computes."""
    return len(build_tree(row.read for row in rows))
