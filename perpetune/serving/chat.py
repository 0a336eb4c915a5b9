"""OpenAI's chat completions contract, as far as it is spoken here: what is asked, and what is answered."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from perpetune.answer import Answer
from perpetune.records import Message
from perpetune.serving.problems import Problem
from perpetune.serving.storable import storable

# What may be sent without asking for something that this server does not do. Sampling options (temperature, top_p,
# seed, penalties) and names unknown here are ignored: answers are always the model's likeliest.
_ACCEPTED: dict[str, tuple[object, ...]] = {
    "n": (None, 1),
    "stop": (None, []),
    "logprobs": (None, False),
    "top_logprobs": (None, 0),
    "logit_bias": (None, {}),
    "response_format": (None, {"type": "text"}),
    "tools": (None, []),
    "tool_choice": (None, "none", "auto"),
    "functions": (None, []),
    "function_call": (None, "none", "auto"),
    "modalities": (None, ["text"]),
    "audio": (None,),
    "web_search_options": (None,),
}


_BLANK_SYSTEM = Message(role="system", content="")


def _plain_text(content: object) -> object:
    """Join the parts of a multi-part content, which may only be text."""
    if not isinstance(content, list):
        return content
    for part in content:
        if not (isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)):
            raise ValueError('only parts like {"type": "text", "text": "..."} are understood')
    return "".join(part["text"] for part in content)


_PARTS = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
        "required": ["type", "text"],
    },
}
Content = Annotated[str, BeforeValidator(_plain_text), WithJsonSchema({"anyOf": [{"type": "string"}, _PARTS]})]


class ChatMessage(BaseModel):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Content

    def as_record(self) -> Message:
        return Message(role="system" if self.role == "developer" else self.role, content=storable(self.content))


class StreamOptions(BaseModel):
    include_usage: bool = False


class ChatRequest(BaseModel):
    model_config = ConfigDict(extra="allow")

    model: str
    messages: Annotated[tuple[ChatMessage, ...], Field(min_length=1)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    user: str | None = None


@dataclass(frozen=True)
class Question:
    """A request that can be answered. `version` is the one it pins; `input` the last thing the user said."""

    version: str | None
    messages: tuple[Message, ...]
    input: str
    max_tokens: int


def read_question(request: ChatRequest, task: str, *, max_chars: int, max_tokens: int) -> Question:
    """Check a request beyond its shape. More tokens than `max_tokens` are never written. Raises Problem."""
    _refuse_unsupported(request.model_extra or {})
    # As with examples, an empty system message says nothing: the task's instruction stands.
    messages = tuple(said for said in map(ChatMessage.as_record, request.messages) if said != _BLANK_SYSTEM)
    chars = sum(len(message.content) for message in messages)
    if chars > max_chars:
        raise Problem(
            413,
            f"The messages have {chars} characters; this server takes {max_chars}.",
            param="messages",
            code="request_too_large",
        )
    spoken = [message.content for message in messages if message.role == "user"]
    if not spoken or not spoken[-1].strip():
        raise Problem(400, "messages: there is no user message with text.", param="messages", code="empty_messages")
    wanted = request.max_completion_tokens or request.max_tokens or max_tokens
    return Question(_pinned(request.model, task), messages, spoken[-1], min(wanted, max_tokens))


def unknown_model(model: str) -> Problem:
    return Problem(404, f"The model `{model}` does not exist here.", param="model", code="model_not_found")


def model_name(task: str, version: str) -> str:
    """The name by which a request pins a version."""
    return f"{task}@{version}"


def _pinned(model: str, task: str) -> str | None:
    name, _, version = model.partition("@")
    if name != task or (not version and model != task):
        raise unknown_model(model)
    return version or None


def _refuse_unsupported(options: dict[str, Any]) -> None:
    for name, accepted in _ACCEPTED.items():
        if name in options and options[name] not in accepted:
            raise Problem(400, f"{name}: this is not supported here.", param=name, code="unsupported_parameter")


@dataclass(frozen=True)
class Reply:
    """An answer with what its body says around it. `created` is in seconds since 1970."""

    id: str
    created: int
    task: str
    version: str
    answer: Answer

    def body(self) -> dict[str, object]:
        """The whole completion."""
        message = {"role": "assistant", "content": self.answer.text, "refusal": None}
        choice = {
            "index": 0,
            "message": message,
            "logprobs": None,
            "finish_reason": self.answer.finish_reason,
        }
        return {
            **self._head("chat.completion"),
            "choices": [choice],
            "usage": self._usage(),
            "perpetune": self._extension(),
        }

    def events(self, *, include_usage: bool) -> Iterator[str]:
        """The completion as server-sent events. The answer is known by now, so its text is one chunk."""
        usage: dict[str, object] = {"usage": None} if include_usage else {}
        yield self._event([_delta({"role": "assistant", "content": ""})], usage)
        yield self._event([_delta({"content": self.answer.text})], usage)
        end = _delta({}, self.answer.finish_reason)
        yield self._event([end], {**usage, "perpetune": self._extension()})
        if include_usage:
            yield self._event([], {"usage": self._usage()})
        yield "data: [DONE]\n\n"

    def _event(self, choices: list[dict[str, object]], more: dict[str, object]) -> str:
        chunk = {**self._head("chat.completion.chunk"), "choices": choices, **more}
        return f"data: {json.dumps(chunk)}\n\n"

    def _head(self, kind: str) -> dict[str, object]:
        model = model_name(self.task, self.version)
        return {"id": self.id, "object": kind, "created": self.created, "model": model}

    def _usage(self) -> dict[str, int]:
        prompt, completion = self.answer.prompt_tokens, self.answer.completion_tokens
        return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}

    def _extension(self) -> dict[str, object]:
        """What OpenAI's contract has no field for."""
        extension: dict[str, object] = {"version": self.version, "confidence": self.answer.confidence}
        if self.answer.probabilities is not None:
            extension["probabilities"] = self.answer.probabilities
        return extension


def _delta(delta: dict[str, object], finish_reason: str | None = None) -> dict[str, object]:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
