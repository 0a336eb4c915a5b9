"""Answers from models that others serve, such as a larger one that answers until a small one has learned to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from pydantic import SecretStr

from perpetune.engines.engine import EngineDown, NotLoaded, Unsupported, require_supported
from perpetune.engines.openai_chat import StreamAssembler, chat_body, read_answers
from perpetune.engines.openai_client import ModelClient, RequestRejected
from perpetune.errors import PerpetuneError
from perpetune.generation.answer import Answer
from perpetune.generation.parameters import Delta, GenerationConfig, OnDelta
from perpetune.model.release import Release
from perpetune.records import Message

Result = TypeVar("Result")

API_KEY_VARIABLE = "PERPETUNE_REMOTE_API_KEY"
MAX_CONCURRENT = 8  # conversations asked for an evaluation

_CHAT = "/chat/completions"
# Some models take these by another name or not at all, and say so: OpenAI's own, since they think before they answer.
_OTHER_NAME = {"max_tokens": "max_completion_tokens"}
_DISPENSABLE = frozenset({"temperature", "top_p", "seed", "presence_penalty", "frequency_penalty"})


@dataclass
class _Served:
    release: Release
    client: ModelClient
    model: str
    refused: set[str]  # the parameters that the model has refused


class RemoteEngine:
    """An `Engine` over models behind OpenAI's chat API."""

    def __init__(self, api_key: SecretStr | None = None) -> None:
        self._api_key = api_key
        self._served: dict[str, _Served] = {}

    async def load(self, release: Release) -> None:
        """The model is not asked: each question costs money."""
        remote = release.remote
        if remote is None:
            raise PerpetuneError(f"version {release.version} does not say where its model answers")
        client = ModelClient(remote.url, self._api_key, f"{remote.model} at {remote.url}")
        self._served[release.version] = _Served(release, client, remote.model, set())

    async def unload(self, version: str) -> None:
        await self._served.pop(version).client.close()

    async def answer(
        self, version: str, messages: Sequence[Message], generation: GenerationConfig, hear: OnDelta | None = None
    ) -> tuple[Answer, ...]:
        served = self._served.get(version)
        if served is None:
            raise NotLoaded(version)
        labels = served.release.labels
        try:
            if labels is None:
                return await _write(served, messages, generation, hear)
            require_supported(generation, labelled=True)
            return await _choose(served, labels, messages, generation, hear)
        except RequestRejected as fault:
            raise _fault(fault, served.model) from fault

    async def close(self) -> None:
        for version in list(self._served):
            await self.unload(version)


def remote_answers(
    release: Release, conversations: Sequence[Sequence[Message]], max_tokens: int, api_key: SecretStr | None
) -> list[Answer]:
    """Greedy answers to conversations that begin with the instruction, some at once.

    Raises PerpetuneError if the model does not answer one of them.
    """

    async def ask() -> list[Answer]:
        engine, turn = RemoteEngine(api_key), asyncio.Semaphore(MAX_CONCURRENT)
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
        with ThreadPoolExecutor(1) as elsewhere:  # the caller may run on an event loop
            return elsewhere.submit(lambda: asyncio.run(ask())).result()
    except (EngineDown, Unsupported) as fault:
        raise PerpetuneError(
            f"version {release.version} cannot be evaluated: {fault}",
            where=release.remote.url if release.remote else None,
            do=f"see that the address answers and {API_KEY_VARIABLE} is right",
        ) from fault


async def _write(
    served: _Served, messages: Sequence[Message], generation: GenerationConfig, hear: OnDelta | None
) -> tuple[Answer, ...]:
    began = time.perf_counter()
    body = chat_body(served.model, messages, generation)
    if hear is None:
        reply = await _post_accepted(served, body, lambda taken: served.client.post(_CHAT, taken))
        return read_answers(reply, generation, time.perf_counter() - began)
    pieces = StreamAssembler(generation, hear)

    async def stream(taken: dict[str, Any]) -> None:
        async with aclosing(served.client.stream(_CHAT, taken)) as chunks:
            async for chunk in chunks:
                pieces.add(chunk)

    await _post_accepted(served, body | {"stream": True, "stream_options": {"include_usage": True}}, stream)
    return pieces.answers(time.perf_counter() - began)


async def _choose(
    served: _Served,
    labels: Sequence[str],
    messages: Sequence[Message],
    generation: GenerationConfig,
    hear: OnDelta | None,
) -> tuple[Answer, ...]:
    """One of the labels, which the model is told of, without a confidence: others do not tell what it thought."""
    plain = replace(generation, n=1, stop=(), json_schema=None)
    [said] = await _write(served, _with_label_prompt(messages, labels), plain, None)
    answer = replace(said, text=_label_in(said.text, labels, served.model), finish_reason="stop")
    for index in range(generation.n if hear else 0):
        assert hear is not None
        hear(Delta(index, answer.text))
    return (answer,) * generation.n


def _with_label_prompt(messages: Sequence[Message], labels: Sequence[str]) -> list[Message]:
    told = "Answer with one of these labels, exactly as it is written, and nothing else:\n" + "\n".join(labels)
    first, *others = messages
    if first.role != "system":
        return [Message(role="system", content=told), *messages]
    return [first.model_copy(update={"content": f"{first.content}\n\n{told}"}), *others]


def _label_in(said: str, labels: Sequence[str], model: str) -> str:
    """The label that was said, whatever its case and the signs around it. Raises EngineDown if it is none."""
    plain = {_plain(label): label for label in labels}
    found = plain.get(_plain(said))
    if found is None:
        raise EngineDown(f"{model} answered {said[:80]!r}, which is none of the {len(labels)} labels")
    return found


def _plain(text: str) -> str:
    return " ".join(text.split()).strip("\"'`*.:! ").casefold()


async def _post_accepted(
    served: _Served, body: dict[str, Any], ask: Callable[[dict[str, Any]], Awaitable[Result]]
) -> Result:
    """Ask with what the model takes of the body, as its refusals teach."""
    for _ in range(len(body)):  # each refusal names one parameter
        try:
            return await ask(_without(body, served.refused))
        except RequestRejected as fault:
            _remember_rejected(served, fault, body)
    raise EngineDown(f"{served.model} refuses every request")


def _remember_rejected(served: _Served, fault: RequestRejected, body: dict[str, Any]) -> None:
    """Remember what the model does not take. Raises the fault if it is about something else."""
    named = str(fault.param)
    if named not in body or (named not in _OTHER_NAME and named not in _DISPENSABLE):
        raise fault
    served.refused.add(named)


def _without(body: dict[str, Any], refused: set[str]) -> dict[str, Any]:
    return {
        _OTHER_NAME.get(name, name) if name in refused else name: value
        for name, value in body.items()
        if name not in refused or name in _OTHER_NAME
    }


def _fault(fault: RequestRejected, model: str) -> Exception:
    if fault.status in (401, 403, 404):
        return EngineDown(f"{model} is refused: {fault}")
    return Unsupported(fault.param or "messages", f"{model} refuses the request: {fault}")
