"""Deterministic fakes of an engine and of a model."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from perpetune.engines.engine import NotLoaded
from perpetune.errors import PerpetuneError
from perpetune.generation.answer import Answer, TokenLogprob
from perpetune.generation.parameters import Delta, GenerationConfig, OnDelta
from perpetune.generation.request import GenerationRequest
from perpetune.model.release import Release
from perpetune.records import Message


def say_version(version: str, messages: Sequence[Message]) -> str:
    """The version and the last message."""
    return f"{version}: {messages[-1].content}"


class FakeEngine:
    """An engine that answers with `say(version, messages)` after `seconds`, word by word with `pause` seconds between.

    For a release with labels the answer is that of `say` if it is a label, else the first label, with confidence `sure`.
    If tools are allowed, `call(messages)` returns the calls. `fault` is raised after `fails_after` words (None: never).
    Versions in `broken` do not load. `loaded` has the versions in the order of loading, `asked` the version and parameters
    of each request, `cancelled` the number of cancelled requests.
    """

    def __init__(
        self,
        say: Callable[[str, Sequence[Message]], str] = say_version,
        *,
        seconds: float = 0.0,
        pause: float = 0.0,
        sure: float = 1.0,
        call: Callable[[Sequence[Message]], tuple[dict[str, object], ...]] = lambda messages: (),
        fault: Exception | None = None,
        fails_after: int | None = None,
        broken: frozenset[str] = frozenset(),
    ) -> None:
        self.loaded: dict[str, Release] = {}
        self.asked: list[tuple[str, GenerationConfig]] = []
        self.cancelled = 0
        self.fault = fault
        self.fails_after = fails_after
        self._say = say
        self._seconds = seconds
        self._pause = pause
        self._sure = sure
        self._call = call
        self._broken = broken

    async def load(self, release: Release) -> None:
        if release.version in self._broken:
            raise PerpetuneError("the adapter does not fit the base model", where=str(release.adapter))
        self.loaded[release.version] = release

    async def unload(self, version: str) -> None:
        del self.loaded[version]

    async def answer(
        self, version: str, messages: Sequence[Message], generation: GenerationConfig, on_delta: OnDelta | None = None
    ) -> tuple[Answer, ...]:
        self._check(version)
        self.asked.append((version, generation))
        try:
            await asyncio.sleep(self._seconds)
            self._check(version)
            answer = self._answer(version, messages, generation)
            await self._stream(answer, generation.n, on_delta)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return (answer,) * generation.n

    async def close(self) -> None:
        self.loaded.clear()

    def _check(self, version: str) -> None:
        if version not in self.loaded:
            raise NotLoaded(version)

    def _answer(self, version: str, messages: Sequence[Message], generation: GenerationConfig) -> Answer:
        labels = self.loaded[version].labels
        text = self._say(version, messages)
        if labels:
            text = text if text in labels else labels[0]
            answer = _answer(text, messages, labels, generation.max_tokens, self._seconds)
            return _with_confidence(answer, self._sure)
        calls = self._call(messages) if generation.tools else ()
        if calls:
            answer = _answer("", messages, None, generation.max_tokens, self._seconds)
            return replace(answer, tool_calls=calls, finish_reason="tool_calls")
        answer = _stopped(_answer(text, messages, None, generation.max_tokens, self._seconds), generation.stop)
        if generation.top_logprobs is None:
            return answer
        return replace(answer, logprobs=tuple(_logprob(piece, generation.top_logprobs) for piece in _pieces(answer)))

    async def _stream(self, answer: Answer, count: int, on_delta: OnDelta | None) -> None:
        pieces = _pieces(answer)
        for number, piece in enumerate(pieces):
            if self.fault and number == self.fails_after:
                raise self.fault
            if on_delta:
                logprobs = answer.logprobs[number : number + 1] if answer.logprobs else None
                calls = answer.tool_calls if number == len(pieces) - 1 else ()
                for index in range(count):
                    on_delta(Delta(index, piece, logprobs, calls, prompt_tokens=answer.prompt_tokens))
                await asyncio.sleep(self._pause)
        if self.fault and self.fails_after is not None:
            raise self.fault


class FakeModel:
    """A `Model` (see transformers_engine) that repeats the last message, one word per step, up to the token limit.

    `batches` lists the adapter and the number of conversations of each call. A conversation that ends with "break" raises
    RuntimeError, as a model that is out of memory.
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
        self._begin(adapter, conversations)
        return [
            _answer(labels[0] if labels else messages[-1].content, messages, labels, max_new_tokens, 0.0)
            for messages in conversations
        ]

    def generate(self, adapter: str | None, next_requests: Callable[[int], Sequence[GenerationRequest]]) -> None:
        writing: list[tuple[GenerationRequest, Iterator[str]]] = []
        while True:
            if asked := next_requests(sum(one.generation.n for one, _ in writing)):
                self._begin(adapter, [one.messages for one in asked])
                writing += [(one, _words(one)) for one in asked]
            elif not writing:
                return
            writing = [(one, pieces) for one, pieces in writing if not one.is_cancelled() and _step(one, pieces)]

    def _begin(self, adapter: str | None, conversations: Sequence[Sequence[Message]]) -> None:
        if adapter is not None and adapter not in self.adapters:
            raise KeyError(adapter)
        self._before_answering()
        self.batches.append((adapter, len(conversations)))
        if any(messages[-1].content == "break" for messages in conversations):
            raise RuntimeError("out of memory at 0xdeadbeef")


def _words(asked: GenerationRequest) -> Iterator[str]:
    """The words of the last message, with the space before each."""
    first, *rest = asked.messages[-1].content.split(" ")[: asked.generation.max_tokens]
    return iter([first, *(f" {word}" for word in rest)])


def _step(asked: GenerationRequest, pieces: Iterator[str]) -> bool:
    """Emit the next word of each answer; False at the end."""
    piece = next(pieces, None)
    if piece is None:
        answer = _answer(asked.messages[-1].content, asked.messages, None, asked.generation.max_tokens, 0.0)
        asked.on_answers((answer,) * asked.generation.n)
        return False
    for index in range(asked.generation.n):
        asked.on_delta(Delta(index, piece))
    return True


def _answer(
    text: str, messages: Sequence[Message], labels: Sequence[str] | None, max_tokens: int, seconds: float
) -> Answer:
    """An answer whose tokens are words."""
    words = text.split(" ")
    limited = " ".join(words[:max_tokens])
    return Answer(
        text=text if labels else limited,
        confidence=1.0 if labels else None,
        probabilities={label: float(label == text) for label in labels} if labels else None,
        prompt_tokens=sum(len(message.content.split()) for message in messages),
        completion_tokens=min(len(words), max_tokens),
        finish_reason="length" if len(words) > max_tokens and not labels else "stop",
        seconds=seconds,
    )


def _pieces(answer: Answer) -> list[str]:
    """The words of an answer, with the space before each."""
    first, *rest = answer.text.split(" ")
    return [first, *(f" {word}" for word in rest)]


def _stopped(answer: Answer, stops: Sequence[str]) -> Answer:
    """The answer up to the first stop sequence."""
    ends = [answer.text.index(stop) for stop in stops if stop in answer.text]
    if not ends:
        return answer
    text = answer.text[: min(ends)]
    return replace(answer, text=text, completion_tokens=len(text.split(" ")), finish_reason="stop")


def _logprob(piece: str, top: int) -> TokenLogprob:
    """A logprob of 0.5 for the word, and decreasing ones for other words."""
    others = tuple((f" other{number}", -1.0 - number) for number in range(1, top))
    return TokenLogprob(piece, math.log(0.5), ((piece, math.log(0.5)), *others) if top else ())


def _with_confidence(answer: Answer, sure: float) -> Answer:
    assert answer.probabilities is not None
    rest = (1 - sure) / max(1, len(answer.probabilities) - 1)
    probabilities = {label: sure if label == answer.text else rest for label in answer.probabilities}
    return replace(answer, confidence=sure, probabilities=probabilities)
