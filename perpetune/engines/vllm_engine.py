"""The engine of a vLLM server, over HTTP.

vLLM loads adapters from this process's path, under a name made of their digest. It is sent tokens, which are cut here
as in training; only requests with tools are sent as messages, because vLLM parses the calls. Labels are not decoded with
a grammar, which would renormalise over the allowed tokens; they are scored from the log-probabilities of their tokens.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

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
from perpetune.engines.openai_api.chat import StreamAssembler, chat_body, read_answers, with_likelihood
from perpetune.engines.openai_api.client import ModelClient, RequestRejected
from perpetune.engines.openai_api.completions import as_chat, completion_body, token_id
from perpetune.engines.openai_api.tls import Tls, TlsFiles
from perpetune.errors import PerpetuneError
from perpetune.generation.answer import Answer, PromptRejected, PromptTooLong, TokenLogprob
from perpetune.generation.parameters import Delta, GenerationConfig, OnDelta
from perpetune.generation.prompt_format import TEMPLATE_AS_IT_IS, PromptFormat
from perpetune.model.release import LABEL_HEAD, Release
from perpetune.params import BaseParams, ServeParams
from perpetune.records import Message

Result = TypeVar("Result")

_CHAT = "/v1/chat/completions"
_COMPLETIONS = "/v1/completions"
_PROBE = "Is it the same tokenizer? 0123 «Größe» 你好\n"
# A model's generation_config.json would set these if a request does not.
_PLAIN = {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
_GREEDY = 1e-5  # vLLM treats lower temperatures as 0
_GUIDE = "see docs/guides/vllm.md on starting vLLM"


class Chat(Protocol):
    """The part of `perpetune.model.chat.chat_tokenizer.ChatTokenizer` that the engine uses."""

    @property
    def stops(self) -> frozenset[int]: ...

    def prompt(
        self, messages: Sequence[Message], tools: str | None = None, chosen: PromptFormat = TEMPLATE_AS_IT_IS
    ) -> list[int]: ...

    def servable(self, messages: Sequence[Message], chosen: PromptFormat) -> tuple[Message, ...]: ...

    def template(self, chosen: PromptFormat) -> str | None: ...

    def answer(self, text: str, chosen: PromptFormat = TEMPLATE_AS_IT_IS) -> list[int]: ...

    def plain(self, text: str) -> list[int]: ...

    def text(self, token: int) -> str: ...


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

    `load_chat` returns the base's tokenizer, always the same; it is called when the first release is loaded. `api_key` is
    the server's `--api-key`.
    """

    def __init__(
        self,
        url: str,
        base: BaseParams,
        params: ServeParams,
        load_chat: Callable[[], Chat],
        api_key: SecretStr | None = None,
        tls: Tls | None = None,
    ) -> None:
        self._vllm = ModelClient(url, api_key, "vLLM", tls or Tls(TlsFiles("PERPETUNE_VLLM")))
        self._base = base
        self._load_chat = load_chat
        self._params = params
        self._served: dict[str, _Served] = {}
        self._in_flight = 0

    async def load(self, release: Release) -> None:
        require_base(release, self._base)
        await asyncio.to_thread(self._load_chat)
        await self._require_same_tokenizer()
        labels = self._label_tokens(release.labels, release.prompt_format) if release.labels is not None else None
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
        except PromptRejected as fault:
            raise Unsupported("messages", str(fault)) from fault
        finally:
            self._in_flight -= 1

    async def close(self) -> None:
        await self._vllm.close()

    @property
    def _chat(self) -> Chat:
        return self._load_chat()

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
            return await self._score_labels(served, served.labels, messages, generation, on_delta)
        if generation.n > 1 and generation.temperature < _GREEDY:
            return await self._generate_once(served, messages, generation, on_delta)
        began = time.perf_counter()
        path, body = self._request(served, messages, with_likelihood(generation))
        body |= _PLAIN | {"stop_token_ids": sorted(self._chat.stops)}
        if generation.n > 1 or on_delta:
            # The usage is the total of all answers, and comes at their end; the ids give the tokens of each, so far.
            body["return_token_ids"] = True
        if on_delta is None:
            reply = self._as_chat(path, await self._vllm.post(path, body), generation)
            return read_answers(reply, generation, time.perf_counter() - began)
        pieces = StreamAssembler(generation, on_delta)
        body |= {"stream": True, "stream_options": {"include_usage": True}}
        async with aclosing(self._vllm.stream(path, body)) as chunks:
            async for chunk in chunks:
                pieces.add(self._as_chat(path, chunk, generation))
        return pieces.answers(time.perf_counter() - began)

    def _request(
        self, served: _Served, messages: Sequence[Message], generation: GenerationConfig
    ) -> tuple[str, dict[str, Any]]:
        """The path and body of a request: tokens, or messages if there are tools."""
        chosen = served.release.prompt_format
        if generation.tools is None:
            prompt = self._chat.prompt(messages, chosen=chosen)
            return _COMPLETIONS, completion_body(served.name, prompt, generation)
        body = chat_body(served.name, self._chat.servable(messages, chosen), generation)
        if chosen.variables != "{}":
            body["chat_template_kwargs"] = json.loads(chosen.variables)
        if template := self._chat.template(PromptFormat(day=chosen.day)):
            body["chat_template"] = template
        return _CHAT, body

    def _as_chat(self, path: str, reply: Mapping[str, Any], generation: GenerationConfig) -> Mapping[str, Any]:
        return reply if path == _CHAT else as_chat(reply, generation, self._chat.text, self._chat.stops)

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
        served: _Served,
        labels: _Labels,
        messages: Sequence[Message],
        generation: GenerationConfig,
        on_delta: OnDelta | None,
    ) -> tuple[Answer, ...]:
        """The most likely label. One request is often enough; others continue from shared prefixes of labels."""
        began = time.perf_counter()
        known: Known = {}
        prompt = self._chat.prompt(messages, chosen=served.release.prompt_format)
        scores, opened = labels.tree.log_probabilities(known)
        while opened:
            requests = labels.tree.requests(opened)
            await asyncio.gather(
                *(self._score_prefixes(served.name, labels.tree, known, prompt, request) for request in requests)
            )
            scores, further = labels.tree.log_probabilities(known)
            if set(further) & set(opened):
                raise EngineDown("vLLM did not return the requested log-probabilities")
            opened = further
        answer = _label_answer(labels, scores, known, len(prompt), generation, began)
        if on_delta:
            for index in range(generation.n):
                on_delta(Delta(index, answer.text, answer.logprobs))
        return (answer,) * generation.n

    async def _score_prefixes(
        self, name: str, tree: LabelTree, known: Known, prompt: Sequence[int], request: LogprobRequest
    ) -> None:
        prompts = [[*prompt, *prefix] for prefix in request.prefixes]
        reply = await self._vllm.post(_COMPLETIONS, _label_body(name, request) | {"prompt": prompts})
        for choice in reply["choices"]:
            tree.add(known, request.prefixes[choice["index"]], _steps(choice))

    def _label_tokens(self, names: tuple[str, ...], chosen: PromptFormat) -> _Labels:
        """The labels' tokens, each with the end-of-turn token. Raises PerpetuneError if vLLM cannot serve them."""
        label_tokens = tuple(tuple(self._chat.answer(name, chosen)) for name in names)
        token_texts = {token: self._chat.text(token) for tail in label_tokens for token in tail}
        tree = LabelTree(label_tokens)
        if tree.max_children() > MAX_LOGPROB_TOKENS:
            raise PerpetuneError(
                f"{tree.max_children()} labels differ at one token, and vLLM returns at most {MAX_LOGPROB_TOKENS} "
                "log-probabilities at once",
                do="set serve.engine: transformers",
            )
        return _Labels(names, label_tokens, tree, token_texts)

    async def _require_same_tokenizer(self) -> None:
        """Raises PerpetuneError if vLLM cuts a text into other tokens: then it serves another base."""
        try:
            reply = await self._vllm.post("/tokenize", {"prompt": _PROBE, "add_special_tokens": False})
        except RequestRejected as fault:
            raise PerpetuneError(f"vLLM does not tokenize: {fault}", do=_GUIDE) from fault
        if list(reply["tokens"]) != self._chat.plain(_PROBE):
            raise PerpetuneError(
                f"vLLM has another tokenizer than the base {self._base.model}: it serves another model",
                where="PERPETUNE_VLLM_URL",
                do=f"start vLLM with the base of params.yaml; {_GUIDE}",
            )


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
        "logprobs": 0,
        "logprob_token_ids": request.tokens,
        "return_tokens_as_token_ids": True,
    }


def _steps(choice: Mapping[str, Any]) -> Iterator[tuple[int, dict[int, float]]]:
    for written, scores in zip(choice["logprobs"]["tokens"], choice["logprobs"]["top_logprobs"], strict=True):
        yield token_id(written), {token_id(token): value for token, value in scores.items()}


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
