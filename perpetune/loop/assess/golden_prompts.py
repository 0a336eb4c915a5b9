"""Serving facts from the evaluation: the temperature of the confidence and the golden prompts of the parity check."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import zip_longest

from perpetune.generation.answer import Answer
from perpetune.model.release import GoldenPrompt, ServingFacts
from perpetune.params import ReleaseParams
from perpetune.records import Example, Message


def serving_facts(
    rows: Sequence[Example], answers: Sequence[Answer], temperature: float, max_tokens: int, params: ReleaseParams
) -> ServingFacts:
    """The temperature and golden prompts of a version; `answers` are its calibrated answers to `rows`."""
    golden = [
        GoldenPrompt(messages=_messages(row), output=answer.text, confidence=answer.confidence)
        for row, answer in _chosen(rows, answers, params)
    ]
    return ServingFacts(temperature=temperature, golden=tuple(golden), max_tokens=max_tokens)


def _chosen(rows: Sequence[Example], answers: Sequence[Answer], params: ReleaseParams) -> list[tuple[Example, Answer]]:
    """Rows in order, alternating between labels. Near ties come last: another machine may break them differently."""
    by_label: dict[str, list[tuple[Example, Answer]]] = defaultdict(list)
    for row, answer in sorted(zip(rows, answers, strict=True), key=lambda pair: _is_tie(pair[1], params)):
        by_label["" if answer.probabilities is None else answer.text].append((row, answer))
    turns = zip_longest(*by_label.values())
    return [pair for turn in turns for pair in turn if pair is not None][: params.parity_prompts]


def _is_tie(answer: Answer, params: ReleaseParams) -> bool:
    if answer.probabilities is None or len(answer.probabilities) < 2:
        return False
    first, second, *_ = sorted(answer.probabilities.values(), reverse=True)
    return first - second <= 2 * params.parity_tolerance


def _messages(row: Example) -> tuple[Message, ...]:
    return row.messages or (Message(role="user", content=row.input),)
