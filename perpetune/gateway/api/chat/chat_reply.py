"""Responses of OpenAI's chat completions API: a complete body, or chunks as server-sent events."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any, Literal

from pydantic import BaseModel

from perpetune.engines.openai_api.json_bytes import json_bytes
from perpetune.gateway.api.chat.chat_request import ToolCall, model_name
from perpetune.gateway.api.errors import ApiError
from perpetune.generation.answer import Answer, TokenLogprob
from perpetune.generation.parameters import Delta
from perpetune.records import Route

DONE = b"data: [DONE]\n\n"
_JSON = json.JSONEncoder(separators=(",", ":"))  # json.dumps would create one per response
_MIN_LOGPROB = -9999.0  # OpenAI's value for an impossible token; JSON has no infinity


class TopLogprob(BaseModel):
    token: str
    logprob: float
    bytes: list[int]


class TokenLogprobs(TopLogprob):
    top_logprobs: list[TopLogprob]


class Logprobs(BaseModel):
    content: list[TokenLogprobs] | None
    refusal: None


class AssistantReply(BaseModel):
    role: Literal["assistant"]
    content: str | None
    refusal: None
    tool_calls: list[ToolCall] | None = None


class Choice(BaseModel):
    index: int
    message: AssistantReply
    logprobs: Logprobs | None
    finish_reason: str


class Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Extension(BaseModel):
    """Fields beyond OpenAI's API: the version, its route, and its confidence."""

    version: str
    route: Route
    confidence: float | None
    probabilities: dict[str, float] | None = None


class Completion(BaseModel):
    """The body of a complete answer."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    perpetune: Extension


@dataclass(frozen=True)
class Reply:
    """Builds the responses to one request. `created` is a Unix time."""

    id: str
    created: int
    task: str
    version: str
    route: Route
    with_logprobs: bool
    include_usage: bool
    _tool_call_counts: Counter[int] = field(default_factory=Counter)

    def body(self, answers: Sequence[Answer]) -> bytes:
        """The JSON of a `Completion`."""
        choices = [self._choice(index, answer) for index, answer in enumerate(answers)]
        whole = {
            **self._head("chat.completion"),
            "choices": choices,
            "usage": token_usage(answers),
            "perpetune": self.extension(answers[0]),
        }
        return json_bytes(whole)

    def beginning(self, count: int) -> bytes:
        """The first event of each of `count` answers, with the role."""
        return b"".join(self._chunk(index, {"role": "assistant", "content": ""}) for index in range(count))

    def piece(self, delta: Delta) -> bytes:
        """The event of one delta."""
        content: dict[str, object] = {"content": delta.text} if delta.text else {}
        if delta.tool_calls:
            content["tool_calls"] = [self._with_index(delta.index, call) for call in delta.tool_calls]
        logprobs = _logprobs(delta.logprobs) if self.with_logprobs and delta.logprobs is not None else None
        return self._chunk(delta.index, content, logprobs)

    def end(self, answers: Sequence[Answer]) -> bytes:
        """The last events: finish reasons, usage and [DONE]."""
        last = len(answers) - 1
        ends = [
            self._chunk(index, {}, None, answer.finish_reason, self.extension(answers[0]) if index == last else None)
            for index, answer in enumerate(answers)
        ]
        if self.include_usage:
            ends.append(event({**self._head("chat.completion.chunk"), "choices": [], "usage": token_usage(answers)}))
        return b"".join([*ends, DONE])

    def error(self, error: ApiError) -> bytes:
        """The last events of a stream that failed."""
        return event(error.body()) + DONE

    @property
    def model(self) -> str:
        """The name that pins the version which answered."""
        return model_name(self.task, self.version)

    def _choice(self, index: int, answer: Answer) -> dict[str, object]:
        message: dict[str, object] = {"role": "assistant", "content": answer.text, "refusal": None}
        if answer.tool_calls:
            message |= {"content": answer.text or None, "tool_calls": list(answer.tool_calls)}
        logprobs = _logprobs(answer.logprobs or ()) if self.with_logprobs else None
        return {"index": index, "message": message, "logprobs": logprobs, "finish_reason": answer.finish_reason}

    def _chunk(
        self,
        index: int,
        delta: dict[str, object],
        logprobs: dict[str, object] | None = None,
        finish_reason: str | None = None,
        extension: dict[str, object] | None = None,
    ) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        chunk = {**self._head("chat.completion.chunk"), "choices": [choice]}
        if self.include_usage:
            chunk["usage"] = None
        if extension:
            chunk["perpetune"] = extension
        return event(chunk)

    def _with_index(self, choice: int, call: dict[str, object]) -> dict[str, object]:
        """A tool call with its index, by which a client merges the chunks."""
        if "index" in call:
            return call
        number = self._tool_call_counts[choice]
        self._tool_call_counts[choice] += 1
        return {"index": number, **call}

    def _head(self, kind: str) -> dict[str, object]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}

    def extension(self, answer: Answer) -> dict[str, object]:
        """The fields beyond OpenAI's API."""
        extension: dict[str, object] = {
            "version": self.version,
            "route": self.route,
            "confidence": answer.confidence,
        }
        if answer.probabilities is not None:
            extension["probabilities"] = answer.probabilities
        return extension


def event(content: dict[str, object]) -> bytes:
    """A server-sent event, in ASCII."""
    return b"data: " + _JSON.encode(content).encode() + b"\n\n"


def token_usage(answers: Sequence[Answer]) -> dict[str, int]:
    """The token counts; the prompt counts once for all answers."""
    prompt, completion = answers[0].prompt_tokens, sum(answer.completion_tokens for answer in answers)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def token_logprobs(tokens: Sequence[TokenLogprob]) -> list[Any]:
    """The log-probabilities as JSON, one entry for each token."""
    content = _logprobs(tokens)["content"]
    assert isinstance(content, list)
    return content


def _logprobs(tokens: Sequence[TokenLogprob]) -> dict[str, object]:
    return {"content": [_with_top(token) for token in tokens], "refusal": None}


def _with_top(token: TokenLogprob) -> dict[str, object]:
    pairs = zip_longest(token.top, token.top_utf8)
    top = [_token(text, logprob, utf8) for (text, logprob), utf8 in pairs]
    return {**_token(token.token, token.logprob, token.utf8), "top_logprobs": top}


def _token(text: str, logprob: float, utf8: bytes | None) -> dict[str, object]:
    encoded = text.encode("utf-8", "replace") if utf8 is None else utf8
    return {"token": text, "logprob": max(logprob, _MIN_LOGPROB), "bytes": list(encoded)}
