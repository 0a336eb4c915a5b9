"""A conversation that is to be answered in free text, and who is told of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from perpetune.generation.answer import Answer
from perpetune.generation.parameters import Delta, Generation, Hear
from perpetune.records import Message


def hear_nothing(delta: Delta) -> None:
    """For those who want whole answers."""


def _never() -> bool:
    return False


@dataclass(frozen=True, eq=False)
class Asked:
    """`answered` gets the `generation.n` answers, or `failed` what went wrong, in the thread that writes.

    `heard` gets each piece as soon as it is known. Once `given_up` is true no more is written.
    """

    messages: Sequence[Message]
    generation: Generation
    answered: Callable[[tuple[Answer, ...]], None]
    failed: Callable[[Exception], None]
    heard: Hear = hear_nothing
    given_up: Callable[[], bool] = _never
