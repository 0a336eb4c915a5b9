"""A request for free text, with its callbacks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from perpetune.generation.answer import Answer
from perpetune.generation.parameters import Delta, GenerationConfig, OnDelta
from perpetune.generation.prompt_format import TEMPLATE_AS_IT_IS, PromptFormat
from perpetune.records import Message


def ignore_delta(delta: Delta) -> None:
    """The `on_delta` of a request that does not stream."""


def _never() -> bool:
    return False


@dataclass(frozen=True, eq=False)
class GenerationRequest:
    """A conversation to answer. Callbacks run in the thread that generates.

    `on_answers` receives the `generation.n` answers, or `on_error` the exception. `on_delta` receives each chunk as
    soon as it is generated. Generation stops once `is_cancelled` returns true.
    """

    messages: Sequence[Message]
    generation: GenerationConfig
    on_answers: Callable[[tuple[Answer, ...]], None]
    on_error: Callable[[Exception], None]
    on_delta: OnDelta = ignore_delta
    is_cancelled: Callable[[], bool] = _never
    prompt_format: PromptFormat = TEMPLATE_AS_IT_IS
