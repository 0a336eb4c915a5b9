"""Cheap baselines: the majority answer and linear models."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from sklearn.pipeline import Pipeline

from perpetune.classifiers.encoder import Encoder
from perpetune.classifiers.linear import linear_answers, linear_model
from perpetune.evaluation.systems import Kind
from perpetune.generation.answer import Answer
from perpetune.records import Example


def majority_answers(train: Sequence[Example], rows: Sequence[Example], kind: Kind) -> list[Answer]:
    """The most frequent output of the training rows (ties: alphabetically first) for every row.

    For classification the probabilities are the outputs' relative frequencies.
    """
    counts = Counter(example.output for example in train)
    answer = min(counts, key=lambda output: (-counts[output], output))
    frequencies = {output: count / len(train) for output, count in sorted(counts.items())}
    return [_answer(answer, frequencies if kind == "classification" else None, seconds=0.0) for _ in rows]


def fitted_answers(train: Sequence[Example], rows: Sequence[Example], seed: int) -> list[Answer]:
    """The answers of TF-IDF with logistic regression, fitted on `train`; the majority answer if it cannot be fitted."""
    model = fitted_linear(train, seed)
    return answers_of(model, rows) if model else majority_answers(train, rows, "classification")


def fitted_linear(train: Sequence[Example], seed: int, encoder: Encoder | None = None) -> Pipeline | None:
    """The linear model fitted on these rows; None if they have one label or no input with text."""
    if len({example.output for example in train}) < 2 or not any(example.input.strip() for example in train):
        return None
    model = linear_model(seed, encoder)
    return model.fit([example.input for example in train], [example.output for example in train])


def answers_of(model: Pipeline, rows: Sequence[Example]) -> list[Answer]:
    """The most likely label of each row, with all probabilities."""
    return linear_answers(model, [row.input for row in rows])


def _answer(text: str, probabilities: dict[str, float] | None, seconds: float) -> Answer:
    return Answer(
        text=text,
        confidence=probabilities[text] if probabilities else None,
        probabilities=probabilities,
        prompt_tokens=0,
        completion_tokens=0,
        finish_reason="stop",
        seconds=seconds,
    )
