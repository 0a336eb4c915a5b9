"""A small task with systems of known strength."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from perpetune.generation.answer import Answer
from perpetune.params import EvaluateParams
from perpetune.records import Example

Maker = Callable[..., Answer]


@pytest.fixture
def params() -> EvaluateParams:
    return EvaluateParams(
        max_new_tokens=8,
        batch_tokens=64,
        few_shot_examples=0,
        recorded=None,
        dollars_per_hour=3.6,
        confidence=0.95,
        bootstrap_samples=200,
        seed=7,
    )


@pytest.fixture
def examples() -> Callable[[Sequence[tuple[str, str]]], list[Example]]:
    def make(pairs: Sequence[tuple[str, str]]) -> list[Example]:
        return [
            Example(input=text, output=output, id=f"row-{number}", group=str(number), source="test")
            for number, (text, output) in enumerate(pairs)
        ]

    return make


@pytest.fixture
def say() -> Maker:
    def make(text: str, probabilities: dict[str, float] | None = None, seconds: float = 0.1) -> Answer:
        confidence = probabilities.get(text) if probabilities else None
        return Answer(text, confidence, probabilities, 50, 1, "stop", seconds)

    return make
