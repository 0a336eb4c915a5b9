"""Deterministic stand-ins for a model, for tests and trials of what stands around it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from perpetune.answer import Answer
from perpetune.errors import PerpetuneError
from perpetune.generation import Delta, Generation, Hear
from perpetune.records import Message
from perpetune.release import Release
from perpetune.serving.engine import NotLoaded


def say_version(version: str, messages: Sequence[Message]) -> str:
    """The version, and the last thing that was said."""
    return f"{version}: {messages[-1].content}"


class FakeEngine:
    """Answers with `say(version, messages)` after `seconds`; with `labels` in the release, surely.

    Versions in `broken` do not load. `loaded` holds the versions in the order they came.
    """

    def __init__(
        self,
        say: Callable[[str, Sequence[Message]], str] = say_version,
        *,
        seconds: float = 0.0,
        broken: frozenset[str] = frozenset(),
    ) -> None:
        self.loaded: dict[str, Release] = {}
        self._say = say
        self._seconds = seconds
        self._broken = broken

    async def load(self, release: Release) -> None:
        if release.version in self._broken:
            raise PerpetuneError("the adapter does not fit the base model", where=str(release.adapter))
        self.loaded[release.version] = release

    async def unload(self, version: str) -> None:
        del self.loaded[version]

    async def answer(
        self, version: str, messages: Sequence[Message], generation: Generation, hear: Hear | None = None
    ) -> tuple[Answer, ...]:
        self._check(version)
        await asyncio.sleep(self._seconds)
        self._check(version)
        text = self._say(version, messages)
        answer = _answer(text, messages, self.loaded[version].labels, generation.max_tokens, self._seconds)
        if hear:
            for index in range(generation.n):
                hear(Delta(index, answer.text))
        return (answer,) * generation.n

    async def close(self) -> None:
        self.loaded.clear()

    def _check(self, version: str) -> None:
        if version not in self.loaded:
            raise NotLoaded(version)


class FakeModel:
    """A `Model` (see transformers_engine) that repeats the last message, cut to the tokens allowed.

    `batches` lists, for each call, the adapter and how many conversations it had. A conversation that ends with
    "break" raises RuntimeError, as a model does that runs out of memory.
    """

    def __init__(self, before_answering: Callable[[], object] = lambda: None) -> None:
        self.adapters: dict[str, Path] = {}
        self.batches: list[tuple[str | None, int]] = []
        self._before_answering = before_answering

    def load_adapter(self, name: str, folder: Path) -> None:
        if name in self.adapters:
            raise ValueError(f"adapter {name} is loaded already")
        self.adapters[name] = folder

    def unload_adapter(self, name: str) -> None:
        del self.adapters[name]

    def answer(
        self,
        adapter: str | None,
        conversations: Sequence[Sequence[Message]],
        labels: Sequence[str] | None,
        max_new_tokens: int,
    ) -> list[Answer]:
        if adapter is not None and adapter not in self.adapters:
            raise KeyError(adapter)
        self._before_answering()
        self.batches.append((adapter, len(conversations)))
        if any(messages[-1].content == "break" for messages in conversations):
            raise RuntimeError("out of memory at 0xdeadbeef")
        return [
            _answer(labels[0] if labels else messages[-1].content, messages, labels, max_new_tokens, 0.0)
            for messages in conversations
        ]


def _answer(
    text: str, messages: Sequence[Message], labels: Sequence[str] | None, max_tokens: int, seconds: float
) -> Answer:
    """Words count as tokens."""
    words = text.split(" ")
    spoken = " ".join(words[:max_tokens])
    return Answer(
        text=text if labels else spoken,
        confidence=1.0 if labels else None,
        probabilities={label: float(label == text) for label in labels} if labels else None,
        prompt_tokens=sum(len(message.content.split()) for message in messages),
        completion_tokens=min(len(words), max_tokens),
        finish_reason="length" if len(words) > max_tokens and not labels else "stop",
        seconds=seconds,
    )
