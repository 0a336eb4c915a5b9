"""The interface between the gateway and a model, and its exceptions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from perpetune.generation.answer import Answer
from perpetune.generation.parameters import GenerationConfig, OnDelta
from perpetune.model.release import Release
from perpetune.records import Message


class Engine(Protocol):
    """Serves several releases at once, each by its version."""

    async def load(self, release: Release) -> None:
        """Load a release beside the others. Raises PerpetuneError if it cannot be served."""

    async def unload(self, version: str) -> None:
        """Unload a release. The caller ensures that none of its requests is in flight."""

    async def answer(
        self, version: str, messages: Sequence[Message], generation: GenerationConfig, on_delta: OnDelta | None = None
    ) -> tuple[Answer, ...]:
        """Return `generation.n` answers to one conversation, which begins with the instruction.

        A release with labels answers with one of them. `on_delta` is called on the event loop with each chunk of an
        answer. Cancelling removes the request from the queue. Raises Overloaded, NotLoaded, EngineDown, Unsupported
        and PromptTooLong.
        """

    async def close(self) -> None:
        """Finish the answers being computed, and stop."""


class Overloaded(Exception):
    """The queue is full. `retry_after` is in seconds."""

    def __init__(self, waiting: int, retry_after: float) -> None:
        super().__init__(f"{waiting} requests are waiting")
        self.retry_after = retry_after


class NotLoaded(Exception):
    """This version is not loaded."""


class EngineDown(Exception):
    """The engine cannot be reached or fails."""


class Unsupported(Exception):
    """This engine does not support the request's parameter `param`."""

    def __init__(self, param: str, why: str) -> None:
        super().__init__(why)
        self.param = param


class ContextExceeded(Unsupported):
    """A model server says that the prompt is too long for its model, in its own words."""

    def __init__(self, why: str) -> None:
        super().__init__("messages", why)


# As JSON, or as the bare word.
_FREE_TOOL_CHOICES = {word for choice in ("auto", "none") for word in (choice, f'"{choice}"')}


def require_supported(generation: GenerationConfig, *, labelled: bool) -> None:
    """Raises Unsupported for parameters that no engine supports for labels."""
    if not labelled:
        return
    if generation.tool_choice is not None and generation.tool_choice not in _FREE_TOOL_CHOICES:
        raise Unsupported("tool_choice", "the answer is one of the labels, so that no tool can be called")
    if generation.top_logprobs is not None:
        raise Unsupported("logprobs", "the answer is one of the labels; see their probabilities in `perpetune`")
    if generation.json_schema is not None:
        raise Unsupported("response_format", "the answer is one of the labels")
