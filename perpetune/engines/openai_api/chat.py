"""Conversion between OpenAI's chat API and our types: request bodies, and replies to Answers."""

from __future__ import annotations

import codecs
import json
import math
from codecs import IncrementalDecoder
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from perpetune.generation.answer import Answer, TokenLogprob
from perpetune.generation.parameters import Delta, GenerationConfig, OnDelta
from perpetune.generation.stop_sequences import StopFilter
from perpetune.generation.token_alignment import AlignedLogprobs, with_text
from perpetune.records import Message

_UTF8 = codecs.getincrementaldecoder("utf-8")
_NO_USAGE: Mapping[str, Any] = {"prompt_tokens": 0, "completion_tokens": 0}  # some servers state none


def chat_body(model: str, messages: Sequence[Message], generation: GenerationConfig) -> dict[str, Any]:
    body: dict[str, Any] = {
        "model": model,
        "messages": message_dicts(messages),
        "max_tokens": generation.max_tokens,
        "temperature": generation.temperature,
        "top_p": generation.top_p,
    }
    if generation.n > 1:
        body["n"] = generation.n
    if generation.stop:
        body["stop"] = generation.stop
    if generation.presence_penalty:
        body["presence_penalty"] = generation.presence_penalty
    if generation.frequency_penalty:
        body["frequency_penalty"] = generation.frequency_penalty
    if generation.seed is not None:
        body["seed"] = generation.seed
    if generation.top_logprobs is not None:
        body |= {"logprobs": True, "top_logprobs": generation.top_logprobs}
    if generation.json_schema is not None:
        schema = {"name": "answer", "schema": json.loads(generation.json_schema), "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    if generation.tools is not None:
        body["tools"] = json.loads(generation.tools)
        if generation.tool_choice is not None:
            body["tool_choice"] = json.loads(generation.tool_choice)
    return body


def with_likelihood(generation: GenerationConfig) -> GenerationConfig:
    """What is asked of a server so that the answer's likelihood is known: the log-probabilities of its tokens."""
    return generation if generation.top_logprobs is not None else replace(generation, top_logprobs=0)


def message_dicts(messages: Sequence[Message]) -> list[dict[str, Any]]:
    return [_message_dict(message) for message in messages]


def _message_dict(message: Message) -> dict[str, Any]:
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        turn["tool_calls"] = message.tool_calls
    if message.tool_call_id is not None:
        turn["tool_call_id"] = message.tool_call_id
    return turn


def read_answers(reply: Mapping[str, Any], generation: GenerationConfig, seconds: float) -> tuple[Answer, ...]:
    written = [_PartialAnswer() for _ in reply["choices"]]
    for choice in reply["choices"]:
        written[choice["index"]].add(choice, choice["message"], generation)
    for one in written:
        one.end()
    usage = reply.get("usage") or _NO_USAGE
    return tuple(one.answer(usage, len(written), generation, seconds) for one in written)


class StreamAssembler:
    """Assembles the chunks of a streamed reply into answers, and forwards each delta."""

    def __init__(self, generation: GenerationConfig, on_delta: OnDelta) -> None:
        self._generation = generation
        self._on_delta = on_delta
        self._choices = [_PartialAnswer() for _ in range(generation.n)]
        self._usage = _NO_USAGE
        self._prompt_tokens = 0

    def add(self, chunk: Mapping[str, Any]) -> None:
        self._usage = chunk.get("usage") or self._usage
        for told in (chunk, *chunk["choices"]):  # vLLM's chat API tells them in the chunk, its completions in a choice
            self._prompt_tokens = len(told.get("prompt_token_ids") or ()) or self._prompt_tokens
        for choice in chunk["choices"]:
            delta = self._choices[choice["index"]].add(choice, choice["delta"], self._generation)
            if delta.text or delta.logprobs or delta.tool_calls:
                self._on_delta(replace(delta, prompt_tokens=self._prompt_tokens))

    def answers(self, seconds: float) -> tuple[Answer, ...]:
        for index, one in enumerate(self._choices):
            if rest := one.end():
                self._on_delta(Delta(index, "", rest, tokens=0, prompt_tokens=self._prompt_tokens))
        return tuple(one.answer(self._usage, len(self._choices), self._generation, seconds) for one in self._choices)


@dataclass
class _PartialAnswer:
    """An answer that is being streamed."""

    # Strips whitespace as the in-process engine does; the server applies the stop sequences.
    text: StopFilter = field(default_factory=lambda: StopFilter(()))
    decoder: IncrementalDecoder = field(default_factory=lambda: _UTF8("replace"))
    alignment: AlignedLogprobs = field(default_factory=AlignedLogprobs)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    calls: dict[int, dict[str, Any]] = field(default_factory=dict)
    tokens: int = 0
    sent_tokens: int = 0
    finish_reason: str = "stop"
    likelihoods: list[float] = field(default_factory=list)

    def add(self, choice: Mapping[str, Any], message: Mapping[str, Any], generation: GenerationConfig) -> Delta:
        text = self.text.add(message.get("content") or "")
        calls = tuple(message.get("tool_calls") or ())
        logprobs = self._aligned(_logprobs(choice, generation.top_logprobs, self.decoder))
        self.likelihoods += _token_logprobs(choice)
        self.tokens += len(choice.get("token_ids") or ())
        self.finish_reason = choice["finish_reason"] or self.finish_reason
        for position, call in enumerate(calls):
            merge_call(self.calls.setdefault(call.get("index", position), {}), call)
        says = bool(text or logprobs or calls)
        return Delta(choice["index"], text, logprobs, calls, tokens=self._unsent_tokens() if says else 0)

    def end(self) -> tuple[TokenLogprob, ...]:
        """The log-probabilities that are left, when all has been added."""
        rest = self.alignment.take(self.text, final=True)
        self.logprobs += rest
        return rest

    def _aligned(self, tokens: tuple[TokenLogprob, ...] | None) -> tuple[TokenLogprob, ...] | None:
        if tokens is None:
            return None
        self.alignment.extend(tokens)
        taken = self.alignment.take(self.text)
        self.logprobs += taken
        return taken

    def _unsent_tokens(self) -> int:
        """The tokens since the last delta; one, if the server does not list them."""
        unsent, self.sent_tokens = self.tokens - self.sent_tokens, self.tokens
        return unsent if self.tokens else 1

    def answer(self, usage: Mapping[str, Any], count: int, generation: GenerationConfig, seconds: float) -> Answer:
        return Answer(
            text=self.text.text,
            confidence=None,
            probabilities=None,
            prompt_tokens=usage["prompt_tokens"],
            completion_tokens=self.tokens if self.tokens and count > 1 else usage["completion_tokens"] // count,
            finish_reason=self.finish_reason,
            seconds=seconds,
            logprobs=tuple(self.logprobs) if generation.top_logprobs is not None else None,
            tool_calls=tuple(self.calls.values()),
            likelihood=self._likelihood,
        )

    @property
    def _likelihood(self) -> float | None:
        """The geometric mean of the tokens' probabilities; None if the server does not give them, or of an empty answer."""
        mean = math.fsum(self.likelihoods) / len(self.likelihoods) if self.likelihoods else math.nan
        return min(1.0, math.exp(mean)) if math.isfinite(mean) else None


def _token_logprobs(choice: Mapping[str, Any]) -> list[float]:
    """The log-probabilities of the tokens of a choice, or of a chunk of it; [] if the server leaves them out."""
    content = (choice.get("logprobs") or {}).get("content") or ()
    found = [one.get("logprob") for one in content]
    return [float(each) if isinstance(each, int | float) else math.nan for each in found]


def _logprobs(
    choice: Mapping[str, Any], most: int | None, decoder: IncrementalDecoder
) -> tuple[TokenLogprob, ...] | None:
    """The tokens of a choice or of a chunk of it, each with the text of the characters that it completes."""
    found = choice.get("logprobs")
    if most is None or not found:
        return None
    return tuple(_token_logprob(one, most, decoder) for one in found["content"] or ())


def _token_logprob(one: Mapping[str, Any], most: int, decoder: IncrementalDecoder) -> TokenLogprob:
    tops = one["top_logprobs"][:most]
    top_utf8 = tuple(_other_bytes(top) for top in tops)
    token = TokenLogprob(
        token=one["token"],
        logprob=one["logprob"],
        top=tuple((top["token"], top["logprob"]) for top in tops),
        utf8=_other_bytes(one),
        top_utf8=top_utf8 if any(top_utf8) else (),
    )
    part = one["token"].encode("utf-8", "replace") if token.utf8 is None else token.utf8
    text = decoder.decode(part)
    return with_text(token, text, None if text.encode() == part else part)


def _other_bytes(token: Mapping[str, Any]) -> bytes | None:
    """The token's bytes, if the server says that they are not those of its text."""
    listed = token.get("bytes")
    return bytes(listed) if listed is not None and bytes(listed) != token["token"].encode("utf-8", "replace") else None


def merge_call(call: dict[str, Any], piece: Mapping[str, Any]) -> None:
    """Merge a chunk of a streamed tool call: id and name come once, the arguments in pieces."""
    for key in ("id", "type"):
        if piece.get(key):
            call[key] = piece[key]
    function = call.setdefault("function", {"name": "", "arguments": ""})
    added = piece.get("function") or {}
    function["name"] += added.get("name") or ""
    function["arguments"] += added.get("arguments") or ""
