"""The engine of a vLLM server, over HTTP.

vLLM loads adapters from this process's path, under a name made of their digest. Labels are not decoded with a grammar,
which would renormalise over the allowed tokens; they are scored from the log-probabilities of their tokens.
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
from perpetune.engines.engine import (
    ContextExceeded,
    EngineDown,
    NotLoaded,
    Overloaded,
    Unsupported,
    require_supported,
)
from perpetune.engines.label_logprobs import MAX_LOGPROB_TOKENS, Known, LabelTree, LogprobRequest, softmax
from perpetune.engines.openai_chat import StreamAssembler, chat_body, message_dicts, read_answers
from perpetune.engines.openai_client import ModelClient, RequestRejected
from perpetune.errors import PerpetuneError
from perpetune.generation.answer import Answer, PromptTooLong, TokenLogprob
from perpetune.generation.parameters import Delta, GenerationConfig, OnDelta
from perpetune.model.release import LABEL_HEAD, Release
from perpetune.params import BaseParams, ServeParams
from perpetune.records import Message

Result = TypeVar("Result")

_CHAT = "/v1/chat/completions"
# A model's generation_config.json would set these if a request does not.
_PLAIN = {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
_GREEDY = 1e-5  # vLLM treats lower temperatures as 0
_GUIDE = "see docs/guides/vllm.md on starting vLLM"


@dataclass(frozen=True)
class _Labels:
    names: tuple[str, ...]
    label_tokens: tuple[tuple[int, ...], ...]
    tree: LabelTree
    token_texts: Mapping[int, str]


@dataclass(frozen=True)
class _Served:
    release: Release
    name: str
    labels: _Labels | None


class VllmEngine:
    """An `Engine` over the vLLM server at `url`, which serves `base`.

    `api_key` is the server's `--api-key`.
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
        except RequestRejected:
            pass  # vLLM was restarted and does not know it
        except EngineDown:
            pass  # when it restarts, the adapter is not loaded

    async def answer(
        self, version: str, messages: Sequence[Message], generation: GenerationConfig, on_delta: OnDelta | None = None
    ) -> tuple[Answer, ...]:
        served = self._served.get(version)
        if served is None:
            raise NotLoaded(version)
        if served.labels is not None:  # whose log-probabilities are known here
            require_supported(replace(generation, top_logprobs=None), labelled=True)
        if self._in_flight >= self._params.max_queue:
            raise Overloaded(self._in_flight, retry_after=1.0)
        self._in_flight += 1
        try:
            return await self._with_reload(served, lambda: self._generate(served, messages, generation, on_delta))
        except RequestRejected as fault:
            raise _client_error(fault, generation) from fault
        finally:
            self._in_flight -= 1

    async def close(self) -> None:
        await self._vllm.close()

    async def _name_of_base(self) -> str:
        """The listed model without a parent; adapters have one."""
        listed = await self._vllm.get("/v1/models")
        names = [str(model["id"]) for model in listed["data"] if not model.get("parent")]
        if not names:
            raise PerpetuneError("vLLM lists no base model", do=_GUIDE)
        return names[0]

    async def _load_adapter(self, served: _Served) -> None:
        """Load the adapter. "Already loaded" is fine, because the name contains the digest."""
        path = str(served.release.adapter.resolve())
        try:
            await self._vllm.post_for_text("/v1/load_lora_adapter", {"lora_name": served.name, "lora_path": path})
        except RequestRejected as fault:
            if "already been loaded" not in str(fault):
                raise PerpetuneError(
                    f"vLLM cannot load version {served.release.version}: {fault}", where=path, do=_GUIDE
                ) from fault

    async def _with_reload(self, served: _Served, request: Callable[[], Awaitable[Result]]) -> Result:
        """Retry once after loading the adapter again, if vLLM was restarted and does not know it."""
        try:
            return await request()
        except RequestRejected as fault:
            if not fault.is_unknown_model or served.release.system == "prompted":
                raise
        try:
            await self._load_adapter(served)
        except PerpetuneError as fault:
            raise EngineDown(f"vLLM was restarted: {fault}") from fault
        return await request()

    async def _generate(
        self, served: _Served, messages: Sequence[Message], generation: GenerationConfig, on_delta: OnDelta | None
    ) -> tuple[Answer, ...]:
        if served.labels is not None:
            return await self._score_labels(served.name, served.labels, messages, generation, on_delta)
        if generation.n > 1 and generation.temperature < _GREEDY:
            return await self._generate_once(served, messages, generation, on_delta)
        began = time.perf_counter()
        body = chat_body(served.name, messages, generation) | _PLAIN
        if generation.n > 1 or on_delta:
            # The usage is the total of all answers, and comes at their end; the ids give the tokens of each, so far.
            body["return_token_ids"] = True
        if on_delta is None:
            reply = await self._vllm.post(_CHAT, body)
            return read_answers(reply, generation, time.perf_counter() - began)
        pieces = StreamAssembler(generation, on_delta)
        body |= {"stream": True, "stream_options": {"include_usage": True}}
        async with aclosing(self._vllm.stream(_CHAT, body)) as chunks:
            async for chunk in chunks:
                pieces.add(chunk)
        return pieces.answers(time.perf_counter() - began)

    async def _generate_once(
        self, served: _Served, messages: Sequence[Message], generation: GenerationConfig, on_delta: OnDelta | None
    ) -> tuple[Answer, ...]:
        """Repeat one greedy answer: vLLM rejects n > 1 at temperature 0."""
        count = generation.n

        def stream_all(delta: Delta) -> None:
            assert on_delta
            for index in range(count):
                on_delta(replace(delta, index=index))

        (only,) = await self._generate(served, messages, replace(generation, n=1), stream_all if on_delta else None)
        return (only,) * count

    async def _score_labels(
        self,
        name: str,
        labels: _Labels,
        messages: Sequence[Message],
        generation: GenerationConfig,
        on_delta: OnDelta | None,
    ) -> tuple[Answer, ...]:
        """The most likely label. One request is often enough; others continue from shared prefixes of labels."""
        began = time.perf_counter()
        known: Known = {}
        [first] = labels.tree.requests([()])
        reply = await self._vllm.post(_CHAT, _label_body(name, first) | {"messages": message_dicts(messages)})
        labels.tree.add(known, (), _chat_steps(reply))
        scores, opened = labels.tree.log_probabilities(known)
        while opened:
            requests = labels.tree.requests(opened)
            await asyncio.gather(
                *(self._score_further(name, labels.tree, known, reply, request) for request in requests)
            )
            scores, further = labels.tree.log_probabilities(known)
            if set(further) & set(opened):
                raise EngineDown("vLLM did not return the requested log-probabilities")
            opened = further
        answer = _label_answer(labels, scores, known, reply["usage"]["prompt_tokens"], generation, began)
        if on_delta:
            for index in range(generation.n):
                on_delta(Delta(index, answer.text, answer.logprobs))
        return (answer,) * generation.n

    async def _score_further(
        self, name: str, tree: LabelTree, known: Known, reply: Mapping[str, Any], request: LogprobRequest
    ) -> None:
        prompts = [[*reply["prompt_token_ids"], *prefix] for prefix in request.prefixes]
        more = await self._vllm.post("/v1/completions", _label_body(name, request) | {"prompt": prompts, "logprobs": 0})
        for choice in more["choices"]:
            tree.add(known, request.prefixes[choice["index"]], _completion_steps(choice))

    async def _label_tokens(self, names: tuple[str, ...]) -> _Labels:
        """Tokenize the labels, each with the end-of-turn token. Raises PerpetuneError if vLLM cannot serve them."""
        try:
            end = await self._end_of_turn()
            label_tokens = tuple(
                [(*await self._tokens({"prompt": name, "add_special_tokens": False}), end) for name in names]
            )
            tokens = sorted({token for tail in label_tokens for token in tail})
            token_texts = {
                token: (await self._vllm.post("/detokenize", {"tokens": [token]}))["prompt"] for token in tokens
            }
        except RequestRejected as fault:
            raise PerpetuneError(f"vLLM does not tokenize the labels: {fault}", do=_GUIDE) from fault
        tree = LabelTree(label_tokens)
        if tree.max_children() > MAX_LOGPROB_TOKENS:
            raise PerpetuneError(
                f"{tree.max_children()} labels differ at one token, and vLLM returns at most {MAX_LOGPROB_TOKENS} "
                "log-probabilities at once",
                do="set serve.engine: transformers",
            )
        return _Labels(names, label_tokens, tree, token_texts)

    async def _end_of_turn(self) -> int:
        """The first token after an assistant's turn: of the common suffix of two conversations."""
        user_turn = {"role": "user", "content": "a"}
        conversations = [[user_turn, {"role": "assistant", "content": text}] for text in ("a", "b")]
        one, other = [
            await self._tokens({"messages": messages, "add_generation_prompt": False}) for messages in conversations
        ]
        equal = 0
        while equal < len(one) and one[-1 - equal] == other[-1 - equal]:
            equal += 1
        if not equal:
            raise PerpetuneError(
                "the chat template has no end-of-turn token for the assistant", do="set serve.engine: transformers"
            )
        return one[-equal]

    async def _tokens(self, body: dict[str, Any]) -> list[int]:
        reply = await self._vllm.post("/tokenize", body)
        return list(reply["tokens"])


def _require_adapter(release: Release) -> None:
    if (release.adapter / LABEL_HEAD).is_file():
        raise PerpetuneError(
            f"version {release.version} has a label head, which vLLM does not serve",
            do="set serve.engine: transformers, or train.objective: likelihood and `perpetune refresh`",
        )
    config = release.adapter / "adapter_config.json"
    if not config.is_file():
        raise PerpetuneError(
            f"version {release.version} is a fully trained model; with vLLM only adapters can be served",
            do="set serve.engine: transformers, or train.method: lora",
        )
    if json.loads(config.read_text(encoding="utf-8")).get("use_dora"):
        raise PerpetuneError(
            f"version {release.version} was trained with DoRA, which vLLM does not serve",
            do="set serve.engine: transformers, or train.method: lora",
        )


def _label_body(name: str, request: LogprobRequest) -> dict[str, Any]:
    return {
        "model": name,
        "max_tokens": request.max_tokens,
        "temperature": 0,
        "repetition_penalty": 1.0,
        "logprobs": True,
        "logprob_token_ids": request.tokens,
        "return_tokens_as_token_ids": True,
        "return_token_ids": True,
    }


def _chat_steps(reply: Mapping[str, Any]) -> Iterator[tuple[int, dict[int, float]]]:
    for step in reply["choices"][0]["logprobs"]["content"]:
        yield _token(step["token"]), {_token(one["token"]): one["logprob"] for one in step["top_logprobs"]}


def _completion_steps(choice: Mapping[str, Any]) -> Iterator[tuple[int, dict[int, float]]]:
    for written, scores in zip(choice["logprobs"]["tokens"], choice["logprobs"]["top_logprobs"], strict=True):
        yield _token(written), {_token(token): value for token, value in scores.items()}


def _token(shown: str) -> int:
    """The id in vLLM's "token_id:504"."""
    return int(shown[9:])


def _label_answer(
    labels: _Labels,
    scores: Sequence[float],
    known: Known,
    prompt_tokens: int,
    generation: GenerationConfig,
    began: float,
) -> Answer:
    among = softmax(scores)
    best = max(range(len(among)), key=among.__getitem__)
    tail = labels.label_tokens[best]
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
    labels: _Labels, tail: tuple[int, ...], known: Known, generation: GenerationConfig
) -> tuple[TokenLogprob, ...] | None:
    """The label's token log-probabilities, with the top tokens among those of the labels."""
    most = generation.top_logprobs
    if most is None:
        return None
    steps = []
    for position, token in enumerate(tail[:-1]):
        here = known[tail[:position]]
        best = sorted((one for one in here if one in labels.token_texts), key=here.__getitem__, reverse=True)[:most]
        top = tuple((labels.token_texts[one], here[one]) for one in best)
        steps.append(TokenLogprob(labels.token_texts[token], here[token], top))
    return tuple(steps)


def _client_error(fault: RequestRejected, generation: GenerationConfig) -> Exception:
    if fault.param == "input_tokens" or fault.is_context_exceeded:
        limit = re.search(r"context length is (?:only )?(\d+)", str(fault))
        tokens = re.search(r"(\d+) input tokens", str(fault))
        if limit and tokens:
            return PromptTooLong(int(tokens[1]), int(limit[1]))
        return ContextExceeded(str(fault))
    where = "response_format" if generation.json_schema and not fault.param else "messages"
    return Unsupported(fault.param or where, str(fault))
