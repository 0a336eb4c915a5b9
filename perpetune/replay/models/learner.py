"""What answers and learns in a replay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from perpetune.records import Example


@dataclass(frozen=True)
class Reply:
    """An answer, and how sure the model is of it (0 to 1; None where it does not say)."""

    answer: str
    confidence: float | None


class Model(Protocol):
    """Models of the same digest give the same answers."""

    @property
    def digest(self) -> str: ...

    def answer(self, rows: Sequence[Example]) -> list[Reply]:
        """One reply for each row, in their order."""


@dataclass(frozen=True)
class FittedModel:
    """A model, and the seconds of training that it is charged with."""

    model: Model
    seconds: float


class Learner(Protocol):
    @property
    def name(self) -> str:
        """What the reader is told that this is."""

    @property
    def at_once(self) -> int:
        """How many rows are worth answering in one call."""

    def fit(self, train: Sequence[Example], validation: Sequence[Example]) -> FittedModel: ...
