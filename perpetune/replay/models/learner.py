"""Protocols of the models in a replay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from perpetune.records import Example


@dataclass(frozen=True)
class Reply:
    """An answer and its confidence (0 to 1; None if the model has none)."""

    answer: str
    confidence: float | None


class Model(Protocol):
    """A trained model. Models with the same digest give the same answers."""

    @property
    def digest(self) -> str: ...

    def answer(self, rows: Sequence[Example]) -> list[Reply]:
        """The replies to the rows, in order."""


@dataclass(frozen=True)
class FittedModel:
    """A trained model and its training time in seconds."""

    model: Model
    seconds: float


class Learner(Protocol):
    """Trains the models of a replay."""

    @property
    def name(self) -> str:
        """A description for reports."""

    @property
    def batch_size(self) -> int:
        """How many rows to answer in one call."""

    def fit(self, train: Sequence[Example], validation: Sequence[Example]) -> FittedModel: ...
