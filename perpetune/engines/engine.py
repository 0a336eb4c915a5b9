"""What answers: the one small interface between the gateway and a model, and how it says no."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from perpetune.generation.answer import Answer
from perpetune.generation.parameters import GenerationConfig, OnDelta
from perpetune.model.release import Release
from perpetune.records import Message


class Engine(Protocol):
    """Serves several releases at once, each under its version."""

    async def load(self, release: Release) -> None:
        """Make a release ready beside what is loaded. Raises PerpetuneError where it cannot be served."""

    async def unload(self, version: str) -> None:
        """Forget a release. The caller sees to it that none of its answers is under way."""

    async def answer(
        self, version: str, messages: Sequence[Message], generation: GenerationConfig, hear: OnDelta | None = None
    ) -> tuple[Answer, ...]:
        """Give `generation.n` answers to one conversation, which begins with the instruction.

        A release with labels is answered with one of them. `hear` is called with each piece of an answer as soon as
        it is known, on the event loop. Cancelling takes the request out of the queue. Raises Overloaded, NotLoaded,
        EngineDown, Unsupported and PromptTooLong.
        """

    async def close(self) -> None:
        """Stop, after the answers that are being computed."""


class Overloaded(Exception):
    """More requests wait than may. `retry_after` is in seconds."""

    def __init__(self, waiting: int, retry_after: float) -> None:
        super().__init__(f"{waiting} requests are waiting")
        self.retry_after = retry_after


class NotLoaded(Exception):
    """The engine does not hold this version."""


class EngineDown(Exception):
    """The engine does not answer at all."""


class Unsupported(Exception):
    """This engine cannot do what the request asks in `param`."""

    def __init__(self, param: str, why: str) -> None:
        super().__init__(why)
        self.param = param


# As JSON, or as the bare word.
_FREE_TOOL_CHOICES = {word for choice in ("auto", "none") for word in (choice, f'"{choice}"')}


def require_supported(generation: GenerationConfig, *, labelled: bool) -> None:
    """Raises Unsupported for what no engine in process can do, or nobody if the answer is one of the labels."""
    if generation.tool_choice is not None and generation.tool_choice not in _FREE_TOOL_CHOICES:
        raise Unsupported("tool_choice", "this engine cannot make the model call a tool")
    if not labelled:
        return
    if generation.top_logprobs is not None:
        raise Unsupported("logprobs", "the answer is one of the labels; their probabilities stand in `perpetune`")
    if generation.json_schema is not None:
        raise Unsupported("response_format", "the answer is one of the labels")
