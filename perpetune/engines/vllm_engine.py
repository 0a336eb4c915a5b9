"""Answers from a vLLM server, over HTTP: continuous batching and many adapters at once on a GPU.

vLLM reads adapters from the path at which this process has them, under a name made of their digest. Labels are not
left to a grammar: it would renormalise each token among those allowed, which is not p(label | input). Instead vLLM
tells the log-probabilities of the labels' own tokens, and the labels are read as far as they matter.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from pydantic import SecretStr

from perpetune.engines.adapter_name import adapter_name
from perpetune.engines.base_match import require_base
from perpetune.engines.engine import EngineDown, NotLoaded, Overloaded, Unsupported
from perpetune.engines.label_logprobs import MOST_TOKENS, Ask, Known, LabelTree, shares
from perpetune.engines.openai_chat import Pieces, chat_body, read_answers, turns
from perpetune.engines.openai_client import ModelClient, Refused
from perpetune.errors import PerpetuneError
from perpetune.generation.answer import Answer, PromptTooLong, TokenLogprob
from perpetune.generation.parameters import Delta, Generation, Hear
from perpetune.model.release import LABEL_HEAD, Release
from perpetune.params import BaseParams, ServeParams
from perpetune.records import Message

Result = TypeVar("Result")

_CHAT = "/v1/chat/completions"
# A model's generation_config.json would set these where a request does not.
_PLAIN = {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
_GREEDY = 1e-5  # vLLM takes any temperature below for 0
_GUIDE = "docs/guides/vllm.md says how to start vLLM"


@dataclass(frozen=True)
class _Labels:
    names: tuple[str, ...]
    tails: tuple[tuple[int, ...], ...]
    tree: LabelTree
    spelled: Mapping[int, str]


@dataclass(frozen=True)
class _Served:
    release: Release
    name: str
    labels: _Labels | None


class VllmEngine:
    """An `Engine` over the vLLM at `url`, which serves `base`; it refuses releases of any other base.

    `api_key` is what vLLM was started with as its `--api-key`.
    """

    def __init__(self, url: str, base: BaseParams, params: ServeParams, api_key: SecretStr | None = None) -> None:
        self._vllm = ModelClient(url, api_key, "vLLM")
        self._base = base
        self._params = params
        self._served: dict[str, _Served] = {}
        self._in_flight = 0

    async def load(self, release: Release) -> None:
        require_base(release, self._base)
        labels = await self._label_tokens(release.labels) if release.labels is not None else None
        if release.system == "prompted":
            served = _Served(release, await self._name_of_base(), labels)
        else:
            _require_adapter(release)
            served = _Served(release, await asyncio.to_thread(adapter_name, release), labels)
            await self._load_adapter(served)
        self._served[release.version] = served

    async def unload(self, version: str) -> None:
        served = self._served.pop(version)
        if served.release.system == "prompted":
            return
        try:
            await self._vllm.post_for_text("/v1/unload_lora_adapter", {"lora_name": served.name})
        except Refused:
            pass  # vLLM was started again since and does not know it any more
        except EngineDown:
            pass  # where it comes back, it comes back without

    async def answer(
        self, version: str, messages: Sequence[Message], generation: Generation, hear: Hear | None = None
    ) -> tuple[Answer, ...]:
        served = self._served.get(version)
        if served is None:
            raise NotLoaded(version)
        if self._in_flight >= self._params.max_queue:
            raise Overloaded(self._in_flight, retry_after=1.0)
        self._in_flight += 1
        try:
            return await self._remembered(served, lambda: self._ask(served, messages, generation, hear))
        except Refused as fault:
            raise _client_error(fault, generation) from fault
        finally:
            self._in_flight -= 1

    async def close(self) -> None:
        await self._vllm.close()

    async def _name_of_base(self) -> str:
        """The model that vLLM lists without a parent, as it has adapters."""
        listed = await self._vllm.get("/v1/models")
        names = [str(model["id"]) for model in listed["data"] if not model.get("parent")]
        if not names:
            raise PerpetuneError("vLLM lists no base model", do=_GUIDE)
        return names[0]

    async def _load_adapter(self, served: _Served) -> None:
        """Have vLLM read the adapter; that it knows it already is well, as the name says the same bytes."""
        path = str(served.release.adapter.resolve())
        try:
            await self._vllm.post_for_text("/v1/load_lora_adapter", {"lora_name": served.name, "lora_path": path})
        except Refused as fault:
            if "already been loaded" not in str(fault):
                raise PerpetuneError(
                    f"vLLM does not load version {served.release.version}: {fault}", where=path, do=_GUIDE
                ) from fault

    async def _remembered(self, served: _Served, ask: Callable[[], Awaitable[Result]]) -> Result:
        """Where vLLM was started again and has forgotten the adapter, load it again and ask once more."""
        try:
            return await ask()
        except Refused as fault:
            if not fault.forgot_model or served.release.system == "prompted":
                raise
        try:
            await self._load_adapter(served)
        except PerpetuneError as fault:
            raise EngineDown(f"vLLM was started again, and {fault}") from fault
        return await ask()

    async def _ask(
        self, served: _Served, messages: Sequence[Message], generation: Generation, hear: Hear | None
    ) -> tuple[Answer, ...]:
        if served.labels is not None:
            return await self._choose(served.name, served.labels, messages, generation, hear)
        if generation.n > 1 and generation.temperature < _GREEDY:
            return await self._ask_once(served, messages, generation, hear)
        began = time.perf_counter()
        body = chat_body(served.name, messages, generation) | _PLAIN
        if generation.n > 1:
            # The usage counts the tokens of all answers together; their ids tell how many each has.
            body["return_token_ids"] = True
        if hear is None:
            reply = await self._vllm.post(_CHAT, body)
            return read_answers(reply, generation, time.perf_counter() - began)
        pieces = Pieces(generation, hear)
        body |= {"stream": True, "stream_options": {"include_usage": True}}
        async with aclosing(self._vllm.stream(_CHAT, body)) as chunks:
            async for chunk in chunks:
                pieces.add(chunk)
        return pieces.answers(time.perf_counter() - began)

    async def _ask_once(
        self, served: _Served, messages: Sequence[Message], generation: Generation, hear: Hear | None
    ) -> tuple[Answer, ...]:
        """Greedy answers are all the same, and vLLM refuses to write more than one."""
        count = generation.n

        def hear_all(delta: Delta) -> None:
            assert hear
            for index in range(count):
                hear(replace(delta, index=index))

        (only,) = await self._ask(served, messages, replace(generation, n=1), hear_all if hear else None)
        return (only,) * count

    async def _choose(
        self, name: str, labels: _Labels, messages: Sequence[Message], generation: Generation, hear: Hear | None
    ) -> tuple[Answer, ...]:
        """The likeliest label. Most often one question tells enough; else others go on from where labels part."""
        began = time.perf_counter()
        known: Known = {}
        [first] = labels.tree.asks([()])
        reply = await self._vllm.post(_CHAT, _label_body(name, first) | {"messages": turns(messages)})
        labels.tree.learn(known, (), _chat_steps(reply))
        found, opened = labels.tree.log_probabilities(known)
        while opened:
            asks = labels.tree.asks(opened)
            await asyncio.gather(*(self._read_on(name, labels.tree, known, reply, ask) for ask in asks))
            found, left = labels.tree.log_probabilities(known)
            if set(left) & set(opened):
                raise EngineDown("vLLM did not tell the log-probabilities that it was asked for")
            opened = left
        answer = _chosen(labels, found, known, reply["usage"]["prompt_tokens"], generation, began)
        if hear:
            for index in range(generation.n):
                hear(Delta(index, answer.text, answer.logprobs))
        return (answer,) * generation.n

    async def _read_on(self, name: str, tree: LabelTree, known: Known, reply: Mapping[str, Any], ask: Ask) -> None:
        prompts = [[*reply["prompt_token_ids"], *beginning] for beginning in ask.beginnings]
        more = await self._vllm.post("/v1/completions", _label_body(name, ask) | {"prompt": prompts, "logprobs": 0})
        for choice in more["choices"]:
            tree.learn(known, ask.beginnings[choice["index"]], _completion_steps(choice))

    async def _label_tokens(self, names: tuple[str, ...]) -> _Labels:
        """The labels as the model writes them, each with the end-of-turn token. Raises PerpetuneError."""
        try:
            end = await self._end_of_turn()
            tails = tuple([(*await self._tokens({"prompt": name, "add_special_tokens": False}), end) for name in names])
            tokens = sorted({token for tail in tails for token in tail})
            spelled = {token: (await self._vllm.post("/detokenize", {"tokens": [token]}))["prompt"] for token in tokens}
        except Refused as fault:
            raise PerpetuneError(f"vLLM does not cut the labels into tokens: {fault}", do=_GUIDE) from fault
        tree = LabelTree(tails)
        if tree.widest() > MOST_TOKENS:
            raise PerpetuneError(
                f"vLLM tells at most {MOST_TOKENS} probabilities at once, and {tree.widest()} labels part at one token",
                do="set serve.engine: transformers",
            )
        return _Labels(names, tails, tree, spelled)

    async def _end_of_turn(self) -> int:
        """The first token behind an assistant's turn: of those that two conversations end with alike."""
        question = {"role": "user", "content": "a"}
        said = [[question, {"role": "assistant", "content": text}] for text in ("a", "b")]
        one, other = [await self._tokens({"messages": messages, "add_generation_prompt": False}) for messages in said]
        alike = 0
        while alike < len(one) and one[-1 - alike] == other[-1 - alike]:
            alike += 1
        if not alike:
            raise PerpetuneError(
                "the chat template closes no turn of the assistant", do="set serve.engine: transformers"
            )
        return one[-alike]

    async def _tokens(self, body: dict[str, Any]) -> list[int]:
        reply = await self._vllm.post("/tokenize", body)
        return list(reply["tokens"])


def _require_adapter(release: Release) -> None:
    if (release.adapter / LABEL_HEAD).is_file():
        raise PerpetuneError(
            f"version {release.version} learned its labels by a label head, which vLLM does not serve",
            do="set serve.engine: transformers, or train.objective: likelihood and `perpetune refresh`",
        )
    config = release.adapter / "adapter_config.json"
    if not config.is_file():
        raise PerpetuneError(
            f"version {release.version} is a fully trained model, and vLLM is given adapters alone",
            do="set serve.engine: transformers, or train.method to an adapter's",
        )
    if json.loads(config.read_text(encoding="utf-8")).get("use_dora"):
        raise PerpetuneError(
            f"version {release.version} was trained with DoRA, which vLLM does not serve",
            do="set serve.engine: transformers, or train.method: lora",
        )


def _label_body(name: str, ask: Ask) -> dict[str, Any]:
    return {
        "model": name,
        "max_tokens": ask.max_tokens,
        "temperature": 0,
        "repetition_penalty": 1.0,
        "logprobs": True,
        "logprob_token_ids": ask.tokens,
        "return_tokens_as_token_ids": True,
        "return_token_ids": True,
    }


def _chat_steps(reply: Mapping[str, Any]) -> Iterator[tuple[int, dict[int, float]]]:
    for step in reply["choices"][0]["logprobs"]["content"]:
        yield _token(step["token"]), {_token(one["token"]): one["logprob"] for one in step["top_logprobs"]}


def _completion_steps(choice: Mapping[str, Any]) -> Iterator[tuple[int, dict[int, float]]]:
    for written, found in zip(choice["logprobs"]["tokens"], choice["logprobs"]["top_logprobs"], strict=True):
        yield _token(written), {_token(token): value for token, value in found.items()}


def _token(shown: str) -> int:
    """vLLM writes them "token_id:504"."""
    return int(shown[9:])


def _chosen(
    labels: _Labels, found: Sequence[float], known: Known, prompt_tokens: int, generation: Generation, began: float
) -> Answer:
    among = shares(found)
    best = max(range(len(among)), key=among.__getitem__)
    tail = labels.tails[best]
    return Answer(
        text=labels.names[best],
        confidence=among[best],
        probabilities=dict(zip(labels.names, among, strict=True)),
        prompt_tokens=prompt_tokens,
        completion_tokens=len(tail),
        finish_reason="stop",
        seconds=time.perf_counter() - began,
        logprobs=_label_logprobs(labels, tail, known, generation),
    )


def _label_logprobs(
    labels: _Labels, tail: tuple[int, ...], known: Known, generation: Generation
) -> tuple[TokenLogprob, ...] | None:
    """Of the label's own tokens, with the likeliest among the tokens of labels in their place."""
    most = generation.top_logprobs
    if most is None:
        return None
    steps = []
    for place, token in enumerate(tail[:-1]):
        here = known[tail[:place]]
        likeliest = sorted((one for one in here if one in labels.spelled), key=here.__getitem__, reverse=True)[:most]
        top = tuple((labels.spelled[one], here[one]) for one in likeliest)
        steps.append(TokenLogprob(labels.spelled[token], here[token], top))
    return tuple(steps)


def _client_error(fault: Refused, generation: Generation) -> Exception:
    if fault.param == "input_tokens":
        limit = re.search(r"context length is (?:only )?(\d+)", str(fault))
        tokens = re.search(r"(\d+) input tokens", str(fault))
        if limit and tokens:
            return PromptTooLong(int(tokens[1]), int(limit[1]))
        return Unsupported("messages", str(fault))
    where = "response_format" if generation.json_schema and not fault.param else "messages"
    return Unsupported(fault.param or where, str(fault))
