"""Tokenised examples, batches, and packing into micro-batches."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from transformers import PreTrainedTokenizerBase

from perpetune.generation.answer import PromptRejected
from perpetune.model.chat.chat_format import prompt_tokens, target_tokens
from perpetune.model.trees.token_tree import build_tree, groups_within
from perpetune.params import TrainParams
from perpetune.records import Example, conversation
from perpetune.statistics.imbalance import is_imbalanced


@dataclass(frozen=True)
class Encoded:
    """A tokenised example; the loss is on `tokens[answer_from:]`, multiplied by `weight`.

    With a `label`, the index of a label of a label head, the loss is on that instead.
    """

    tokens: tuple[int, ...]
    answer_from: int
    weight: float = 1.0
    label: int | None = None

    @property
    def inputs(self) -> tuple[int, ...]:
        """The input tokens: the prompt for a label head, otherwise all but the last token."""
        return self.tokens[:-1] if self.label is None else self.tokens[: self.answer_from]

    @property
    def answer_weight(self) -> float:
        """The example's weight in a mean over answer tokens, or over labels."""
        return self.weight * (1 if self.label is not None else len(self.tokens) - self.answer_from)


def encode(tokenizer: PreTrainedTokenizerBase, row: Example, instruction: str) -> Encoded:
    """Tokenise a row. Raises PromptRejected, with the row's id, if the chat template rejects its conversation."""
    prompt = encode_prompt(tokenizer, row, instruction)
    return Encoded((*prompt, *target_tokens(tokenizer, row, instruction)), len(prompt))


def encode_prompt(tokenizer: PreTrainedTokenizerBase, row: Example, instruction: str) -> list[int]:
    try:
        return prompt_tokens(tokenizer, conversation(instruction, row), row.tools)
    except PromptRejected as fault:
        do = "correct the row, or take it out of the data"
        raise PromptRejected(fault.what, where=f"row {row.id} ({row.source})", do=do) from fault


def encode_all(
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Example],
    instruction: str,
    params: TrainParams,
    labels: Sequence[str] | None = None,
) -> list[Encoded]:
    """Tokenise the rows, with weights by `train.class_weights`; rows longer than `max_example_tokens` are left out.

    With the `labels` of a label head, rows with other labels are left out too.
    """
    positions = {label: position for position, label in enumerate(labels or ())}
    rows = [row for row in rows if labels is None or row.output in positions]
    weights = _class_weights(rows) if _uses_class_weights(rows, params) else [1.0] * len(rows)
    encoded = (
        replace(encode(tokenizer, row, instruction), weight=weight, label=positions.get(row.output))
        for row, weight in zip(rows, weights, strict=True)
    )
    return [row for row in encoded if len(row.tokens) <= params.max_example_tokens]


def _uses_class_weights(rows: Sequence[Example], params: TrainParams) -> bool:
    if params.class_weights != "auto":
        return params.class_weights == "balanced"
    return is_imbalanced(Counter(row.output for row in rows))


def _class_weights(rows: Sequence[Example]) -> list[float]:
    """Balanced class weights as in scikit-learn: rows / (labels * rows of its label)."""
    counts = Counter(row.output for row in rows)
    return [len(rows) / (len(counts) * counts[row.output]) for row in rows]


def sample_rows(rows: Sequence[Example], count: int, seed: int) -> list[Example]:
    """A random sample of at most `count` rows, because rows are ordered by source."""
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)).tolist()
    return [rows[index] for index in order[:count]]


def batches(rows: Sequence[Encoded], batch_size: int, seed: int) -> Iterator[list[Encoded]]:
    """Yield batches endlessly, each epoch in a new order from the seed.

    Rows for a label head come in pairs of the same label if possible, for the contrastive loss.
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
    pairs = [same[start : start + 2] for same in by_label.values() for start in range(0, len(same), 2)]
    order = torch.randperm(len(pairs), generator=generator).tolist()
    return [row for index in order for row in pairs[index]]


def pack_rows(
    rows: Sequence[Encoded], limit: int, longest_in_tree: float = math.inf, *, one_by_one: bool = False
) -> list[list[Encoded]]:
    """Pack rows into micro-batches of at most `limit` tokens, sorted by label or by common prefix.

    Rows whose inputs are longer than `longest_in_tree` share no tokens. They are in micro-batches of their own, and with
    `one_by_one` each in one.
    """
    rows = sorted(rows, key=lambda row: (-1 if row.label is None else row.label, row.tokens))
    in_tree = [row for row in rows if len(row.inputs) <= longest_in_tree]
    alone = [row for row in rows if len(row.inputs) > longest_in_tree]
    packed = [[in_tree[index] for index in run] for run in groups_within([row.inputs for row in in_tree], limit)]
    return packed + list(_one_after_another(alone, 0 if one_by_one else limit))


def _one_after_another(rows: Sequence[Encoded], limit: int) -> Iterator[list[Encoded]]:
    """The rows in micro-batches of at most `limit` tokens, or of one row."""
    batch: list[Encoded] = []
    for row in rows:
        if batch and sum(len(other.inputs) for other in batch) + len(row.inputs) > limit:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def tree_size(rows: Sequence[Encoded], longest_in_tree: float = math.inf) -> int:
    """The number of tokens that are computed for the rows of a micro-batch: those of their token tree."""
    if any(len(row.inputs) > longest_in_tree for row in rows):
        return sum(len(row.inputs) for row in rows)
    return len(build_tree(row.inputs for row in rows))
