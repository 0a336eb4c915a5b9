"""The engine of models behind a remote OpenAI-compatible API, such as a larger hosted model."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import SecretStr

from perpetune.engines.engine import ContextExceeded, EngineDown, NotLoaded, Unsupported, require_supported
from perpetune.engines.openai_api.chat import StreamAssembler, chat_body, read_answers, with_likelihood
from perpetune.engines.openai_api.client import ModelClient, RequestRejected
from perpetune.engines.openai_api.tls import Tls
from perpetune.errors import PerpetuneError
from perpetune.generation.answer import Answer
from perpetune.generation.parameters import Delta, GenerationConfig, OnDelta
from perpetune.model.release import Release
from perpetune.params import BaseParams, RemoteModel
from perpetune.records import Message

Result = TypeVar("Result")

API_KEY_VARIABLE = "PERPETUNE_REMOTE_API_KEY"
MAX_CONCURRENT = 8  # requests of an evaluation
UNVERSIONED = "1"
FAILURES = 3  # in a row, after which a server is not asked for more

_CHAT = "/chat/completions"
# Parameters that some models reject or want under another name, such as OpenAI's reasoning models.
_OTHER_NAME = {"max_tokens": "max_completion_tokens"}
_DISPENSABLE = frozenset({"temperature", "top_p", "seed", "presence_penalty", "frequency_penalty"})
_LOG_PROBABILITIES = ("logprobs", "top_logprobs")


@dataclass
class _Served:
    release: Release
    client: ModelClient
    model: str
    rejected: set[str]  # parameters that the model does not accept
    gives_likelihood: bool = True  # until it rejects log-probabilities


class RemoteEngine:
    """An `Engine` over models behind OpenAI's chat API. `likelihood`: whether that of free text is asked for."""

    def __init__(self, api_key: SecretStr | None = None, tls: Tls | None = None, *, likelihood: bool = True) -> None:
        self._likelihood = likelihood
        self._api_key = api_key
        self._tls = tls
        self._served: dict[str, _Served] = {}

    async def load(self, release: Release) -> None:
        """Register the release. The model is not called, because every request costs money."""
        remote = release.remote
        if remote is None:
            raise PerpetuneError(f"version {release.version} has no remote model (release.remote is missing)")
        client = ModelClient(remote.url, self._api_key, f"{remote.model} at {remote.url}", self._tls)
        self._served[release.version] = _Served(release, client, remote.model, set(), self._likelihood)

    async def unload(self, version: str) -> None:
        await self._served.pop(version).client.close()

    async def answer(
        self, version: str, messages: Sequence[Message], generation: GenerationConfig, on_delta: OnDelta | None = None
    ) -> tuple[Answer, ...]:
        served = self._served.get(version)
        if served is None:
            raise NotLoaded(version)
        labels = served.release.labels
        try:
            if labels is None:
                return await _generate(served, messages, generation, on_delta)
            require_supported(generation, labelled=True)
            return await _generate_label(served, labels, messages, generation, on_delta)
        except RequestRejected as fault:
            raise _error_from(fault, served.model) from fault

    async def close(self) -> None:
        for version in list(self._served):
            await self.unload(version)


def remote_answers(
    release: Release,
    conversations: Sequence[Sequence[Message]],
    max_tokens: int,
    api_key: SecretStr | None,
    tls: Tls | None = None,
) -> list[Answer]:
    """Greedy answers to conversations that begin with the instruction, requested concurrently.

    Raises PerpetuneError if a request fails.
    """

    async def run() -> list[Answer]:
        engine, turn = RemoteEngine(api_key, tls), asyncio.Semaphore(MAX_CONCURRENT)
        generation = GenerationConfig(max_tokens, json_schema=release.json_schema)

        async def one(messages: Sequence[Message]) -> Answer:
            async with turn:
                [answer] = await engine.answer(release.version, messages, generation)
                return answer

        await engine.load(release)
        try:
            return await asyncio.gather(*map(one, conversations))
        finally:
            await engine.close()

    try:
        with ThreadPoolExecutor(1) as executor:  # the caller may run on an event loop
            return executor.submit(lambda: asyncio.run(run())).result()
    except (EngineDown, Unsupported) as fault:
        raise PerpetuneError(
            f"version {release.version} cannot be evaluated: {fault}",
            where=release.remote.url if release.remote else None,
            do=f"check that the URL answers and that {API_KEY_VARIABLE} is correct",
        ) from fault


@dataclass(frozen=True)
class RemoteReplies:
    """`answers` to the first conversations, None for one without; fewer than conversations if `fault` says why.

    `unkept` are answers, by the number of the conversation, that came beside the failure: they are paid for too.
    """

    answers: Sequence[Answer | None]
    fault: str | None = None
    unkept: Mapping[int, Answer] = field(default_factory=dict)


def remote_replies(
    release: Release,
    conversations: Sequence[Sequence[Message]],
    generation: GenerationConfig,
    api_key: SecretStr | None,
    tls: Tls | None = None,
    *,
    concurrency: int,
    seconds: float,
) -> RemoteReplies:
    """Ask about each conversation; one that the server rejects or that takes longer than `seconds` has no answer.

    If the server is down, or fails `FAILURES` in a row, nothing further is asked, and what was answered is kept, because
    every request costs money.
    """

    async def run() -> RemoteReplies:
        engine, answers = RemoteEngine(api_key, tls, likelihood=False), list[Answer | None]()
        await engine.load(release)
        try:
            for first in range(0, len(conversations), concurrency):
                batch = conversations[first : first + concurrency]
                asked = (_within(seconds, engine.answer(release.version, each, generation)) for each in batch)
                replies = await asyncio.gather(*asked, return_exceptions=True)
                fault = _keep(replies, answers, seconds)
                if fault is not None:
                    return RemoteReplies(answers, fault, _beyond(replies, first, len(answers)))
            return RemoteReplies(answers)
        finally:
            await engine.close()

    with ThreadPoolExecutor(1) as executor:  # the caller may run on an event loop
        return executor.submit(lambda: asyncio.run(run())).result()


def _beyond(replies: Sequence[tuple[Answer, ...] | BaseException], first: int, kept: int) -> dict[int, Answer]:
    """The answers of a batch, whose first conversation is number `first`, that came beside the failure and are not kept."""
    return {
        first + place: reply[0]
        for place, reply in enumerate(replies)
        if first + place >= kept and not isinstance(reply, BaseException)
    }


def _keep(
    replies: Sequence[tuple[Answer, ...] | BaseException], answers: list[Answer | None], seconds: float
) -> str | None:
    """Add the replies to the answers, and say why nothing further is to be asked; None if it is."""
    for reply in replies:
        if isinstance(reply, EngineDown):
            return str(reply)
        if not isinstance(reply, BaseException):
            answers.append(reply[0])
            continue
        if not isinstance(reply, TimeoutError | Unsupported):
            raise reply
        answers.append(None)
        if answers[-FAILURES:] == [None] * FAILURES:
            del answers[-FAILURES:]
            return f"no answer within {seconds:g} s" if isinstance(reply, TimeoutError) else str(reply)
    return None


async def _within(seconds: float, request: Awaitable[Result]) -> Result:
    async with asyncio.timeout(seconds):
        return await request


def remote_release(task: str, remote: RemoteModel) -> Release:
    """A model that is asked as it is: without labels, and with its instruction in the conversation."""
    return Release(
        task=task,
        version=UNVERSIONED,
        adapter=Path(),
        instruction="",
        labels=None,
        base=BaseParams(model="path:none", revision="none"),
        system="remote",
        remote=remote,
    )


async def _generate(
    served: _Served, messages: Sequence[Message], generation: GenerationConfig, on_delta: OnDelta | None
) -> tuple[Answer, ...]:
    began = time.perf_counter()
    body = chat_body(served.model, messages, generation)
    added = _log_probabilities(served, messages, generation)
    if on_delta is None:
        # With status 200 there may be an error too, no choice, or the page of a proxy.
        nonsense = EngineDown(f"{served.model} answered with something else than a chat completion")
        try:
            reply = await _post_accepted(served, body, lambda accepted: served.client.post(_CHAT, accepted), added)
            found = read_answers(reply, generation, time.perf_counter() - began)
        except (KeyError, IndexError, TypeError, AttributeError, ValueError) as fault:
            raise nonsense from fault
        if not found:
            raise nonsense
        return found
    pieces = StreamAssembler(generation, on_delta)

    async def stream(accepted: dict[str, Any]) -> None:
        async with aclosing(served.client.stream(_CHAT, accepted)) as chunks:
            async for chunk in chunks:
                pieces.add(chunk)

    await _post_accepted(served, body | {"stream": True, "stream_options": {"include_usage": True}}, stream, added)
    return pieces.answers(time.perf_counter() - began)


async def _generate_label(
    served: _Served,
    labels: Sequence[str],
    messages: Sequence[Message],
    generation: GenerationConfig,
    on_delta: OnDelta | None,
) -> tuple[Answer, ...]:
    """One of the labels, which the prompt lists. Remote APIs give no label probabilities, so there is no confidence."""
    plain = replace(generation, n=1, stop=(), json_schema=None)
    [reply] = await _generate(served, _with_label_prompt(messages, labels), plain, None)
    answer = replace(reply, text=_label_in(reply.text, labels, served.model), finish_reason="stop")
    for index in range(generation.n if on_delta else 0):
        assert on_delta is not None
        on_delta(Delta(index, answer.text))
    return (answer,) * generation.n


def _with_label_prompt(messages: Sequence[Message], labels: Sequence[str]) -> list[Message]:
    instruction = "Answer with one of these labels, exactly as it is written, and nothing else:\n" + "\n".join(labels)
    first, *others = messages
    if first.role != "system":
        return [Message(role="system", content=instruction), *messages]
    return [first.model_copy(update={"content": f"{first.content}\n\n{instruction}"}), *others]


def _label_in(reply: str, labels: Sequence[str], model: str) -> str:
    """The label in the reply, ignoring case and punctuation around it. Raises EngineDown if it is none."""
    found = label_named(reply, labels)
    if found is None:
        raise EngineDown(f"{model} answered {reply[:80]!r}, which is none of the {len(labels)} labels")
    return found


def label_named(reply: str, labels: Sequence[str]) -> str | None:
    """The label that the reply is, ignoring case and punctuation around it; None if it is none."""
    return {_normalised(label): label for label in labels}.get(_normalised(reply))


def _normalised(text: str) -> str:
    return " ".join(text.split()).strip("\"'`*.:! ").casefold()


def _log_probabilities(served: _Served, messages: Sequence[Message], generation: GenerationConfig) -> dict[str, Any]:
    """What is added to the request of a free text so that its likelihood is known: {} if the client asks for it itself."""
    if served.release.labels is not None or not served.gives_likelihood or generation.top_logprobs is not None:
        return {}
    asked = chat_body(served.model, messages, with_likelihood(generation))
    return {name: asked[name] for name in _LOG_PROBABILITIES}


async def _post_accepted(
    served: _Served, body: dict[str, Any], send: Callable[[dict[str, Any]], Awaitable[Result]], added: dict[str, Any]
) -> Result:
    """Send the body without the parameters that the model has rejected, and with what is `added` if it takes that."""
    for _ in range(len(body) + 1):  # each rejection names one parameter
        extra = added if served.gives_likelihood else {}
        try:
            return await send(_without(body, served.rejected) | extra)
        except RequestRejected as fault:
            if extra and _is_about_log_probabilities(fault):
                served.gives_likelihood = False
            else:
                _remember_rejected(served, fault, body)
    raise EngineDown(f"{served.model} rejects every request")


def _is_about_log_probabilities(fault: RequestRejected) -> bool:
    return fault.param in _LOG_PROBABILITIES or "logprobs" in str(fault).casefold()


def _remember_rejected(served: _Served, fault: RequestRejected, body: dict[str, Any]) -> None:
    """Remember the rejected parameter. Raises the error if it is not about a dispensable one."""
    named = str(fault.param)
    if named not in body or (named not in _OTHER_NAME and named not in _DISPENSABLE):
        raise fault
    served.rejected.add(named)


def _without(body: dict[str, Any], rejected: set[str]) -> dict[str, Any]:
    return {
        _OTHER_NAME.get(name, name) if name in rejected else name: value
        for name, value in body.items()
        if name not in rejected or name in _OTHER_NAME
    }


def _error_from(fault: RequestRejected, model: str) -> Exception:
    if fault.status in (401, 403, 404):
        return EngineDown(f"access to {model} was denied: {fault}")
    if fault.is_context_exceeded:
        return ContextExceeded(str(fault))
    return Unsupported(fault.param or "messages", f"{model} rejects the request: {fault}")
