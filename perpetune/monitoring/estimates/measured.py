"""Answers that a value is asked for, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from perpetune.curation.text import fingerprint
from perpetune.records import Message, Prediction, conversation

DECIMALS = 4  # that a value is kept with


@dataclass(frozen=True)
class Answered:
    """A conversation without the task's instruction, and the answer to it."""

    id: str
    messages: tuple[Message, ...]
    output: str


@dataclass(frozen=True)
class Measured:
    """The values of the first answers that were asked for, in their order; None for a reply without one.

    There are fewer than answers if asking stopped, and `fault` says why. `dollars` is the cost, 0 without prices. `unkept`
    replies came beside a failure: they have no value, and are paid for.
    """

    values: tuple[float | None, ...]
    dollars: float = 0.0
    fault: str | None = None
    unkept: int = 0

    @property
    def requests(self) -> int:
        """What counts in the budget."""
        return len(self.values) + self.unkept


Measure = Callable[[Sequence[Answered]], Measured]


def answered(row: Prediction) -> Answered:
    return Answered(row.id, conversation("", row), row.output)


def lot(answers: Iterable[Answered], count: int) -> list[Answered]:
    """`count` of the answers by lot, each with the same probability: a hash of the id decides, so that a later lot of about
    the same answers is about the same.
    """
    return sorted(answers, key=lambda each: fingerprint("estimate", each.id))[:count]
