"""A surrogate model that trains in seconds: TF-IDF with logistic regression for labels, nearest neighbour for free text.

Its scores differ from those of the language model but change with the data in a similar way, which is what policies use.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from perpetune.classifiers.linear import linear_model
from perpetune.evaluation.systems import Kind
from perpetune.records import Example
from perpetune.replay.models.learner import FittedModel, Reply

ASSUMED_MINUTES = 10.0  # of a refresh of a small model on two cores


@dataclass(frozen=True)
class Surrogate:
    """A model of word unigrams and bigrams; `minutes` is the training time that a refresh is charged."""

    kind: Kind
    seed: int
    minutes: float = ASSUMED_MINUTES
    batch_size: int = 256

    @property
    def name(self) -> str:
        what = "TF-IDF with logistic regression" if self.kind == "classification" else "the nearest known request"
        return f"a surrogate, {what}: its score is not that of the language model"

    def fit(self, train: Sequence[Example], validation: Sequence[Example]) -> FittedModel:
        """Train on the training and validation rows, because there is no early stopping."""
        rows = [*train, *validation]
        model = _classifier(rows, self.seed) if self.kind == "classification" else _neighbours(rows)
        return FittedModel(model, 60 * self.minutes)


@dataclass(frozen=True)
class _Constant:
    """The model if there is only one answer, or no word."""

    digest: str
    output: str

    def answer(self, rows: Sequence[Example]) -> list[Reply]:
        return [Reply(self.output, 1.0) for _ in rows]


@dataclass(frozen=True)
class _Classifier:
    digest: str
    pipeline: Any

    def answer(self, rows: Sequence[Example]) -> list[Reply]:
        found = self.pipeline.predict_proba([row.input for row in rows])
        classes = [str(label) for label in self.pipeline.classes_]
        return [Reply(classes[int(row.argmax())], float(row.max())) for row in found]


@dataclass(frozen=True)
class _Neighbours:
    digest: str
    words: Any
    known: Any
    outputs: tuple[str, ...]

    def answer(self, rows: Sequence[Example]) -> list[Reply]:
        comparison = (self.words.transform([row.input for row in rows]) @ self.known.T).toarray()
        nearest = comparison.argmax(axis=1)
        return [
            Reply(self.outputs[position], float(np.clip(row[position], 0, 1)))
            for row, position in zip(comparison, nearest, strict=True)
        ]


def _classifier(rows: Sequence[Example], seed: int) -> _Classifier | _Constant:
    outputs = [row.output for row in rows]
    if len(set(outputs)) < 2 or not any(row.input.strip() for row in rows):
        return _constant(rows)
    return _Classifier(_digest(rows), linear_model(seed).fit([row.input for row in rows], outputs))


def _neighbours(rows: Sequence[Example]) -> _Neighbours | _Constant:
    if not any(row.input.strip() for row in rows):
        return _constant(rows)
    words = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\w+|[^\w\s]", sublinear_tf=True)
    known = words.fit_transform([row.input for row in rows])
    return _Neighbours(_digest(rows), words, known, tuple(row.output for row in rows))


def _constant(rows: Sequence[Example]) -> _Constant:
    outputs = [row.output for row in rows]
    return _Constant(_digest(rows), max(sorted(set(outputs)), key=outputs.count))


def _digest(rows: Sequence[Example]) -> str:
    return hashlib.sha256("\n".join(row.model_dump_json() for row in rows).encode()).hexdigest()[:16]
