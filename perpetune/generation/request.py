"""A conversation that is to be answered in free text, and who is told of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from perpetune.generation.answer import Answer
from perpetune.generation.parameters import Delta, GenerationConfig, OnDelta
from perpetune.records import Message


def ignore_delta(delta: Delta) -> None:
    """For those who want whole answers."""


def _never() -> bool:
    return False


@dataclass(frozen=True, eq=False)
class GenerationRequest:
    """`answered` gets the `generation.n` answers, or `failed` what went wrong, in the thread that writes.

    `on_delta` gets each piece as soon as it is known. Once `is_cancelled` is true no more is written.
    """

    messages: Sequence[Message]
    generation: GenerationConfig
    answered: Callable[[tuple[Answer, ...]], None]
    failed: Callable[[Exception], None]
    on_delta: OnDelta = ignore_delta
    is_cancelled: Callable[[], bool] = _never
