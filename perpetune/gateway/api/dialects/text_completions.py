"""`POST /v1/completions`, OpenAI's older API: a prompt or a list of prompts, each of which is a user's message here."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message

from perpetune.gateway.api.chat.chat_reply import DONE, Reply, Usage, event, token_usage
from perpetune.gateway.api.chat.chat_request import ChatRequest, Stop, StreamOptions
from perpetune.gateway.api.dialects.dialect import Dialect, Replies, WriteAs
from perpetune.gateway.api.errors import ApiError, invalid
from perpetune.gateway.api.request.content_type import is_json
from perpetune.gateway.api.request.request_json import parse_json
from perpetune.generation.answer import Answer, TokenLogprob
from perpetune.generation.parameters import Delta

PATH = "/v1/completions"
MAX_PROMPTS = 128

# Accepted with these values, which have no effect.
_UNSUPPORTED: dict[str, tuple[object, ...]] = {"echo": (None, False), "suffix": (None, ""), "logit_bias": (None, {})}
_JSON = json.JSONEncoder(separators=(",", ":"))
_SAME = (
    "model",
    "n",
    "stop",
    "temperature",
    "top_p",
    "presence_penalty",
    "frequency_penalty",
    "seed",
    "user",
    "metadata",
)


class TextRequest(BaseModel):
    """OpenAI's request. Tokens instead of text are refused: their numbers are those of another tokenizer."""

    model_config = ConfigDict(extra="allow")

    model: Annotated[str, Field(description="The task, or TASK@VERSION to pin a version.")]
    prompt: Annotated[
        Annotated[str, Tag("text")] | Annotated[list[str], Field(min_length=1, max_length=MAX_PROMPTS), Tag("texts")],
        Discriminator(lambda value: "text" if isinstance(value, str) else "texts"),
    ]
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    n: Annotated[int, Field(ge=1, le=8)] | None = None
    best_of: Annotated[int, Field(ge=1)] | None = None
    stop: Stop | None = None
    temperature: Annotated[float, Field(ge=0, le=2, description="Default: 0, greedy decoding.")] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    seed: int | None = None
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None
    metadata: Any = None

    @property
    def prompts(self) -> list[str]:
        return [self.prompt] if isinstance(self.prompt, str) else self.prompt


class TextChoice(BaseModel):
    """One answer. `perpetune.request_id` is the id for feedback."""

    text: str
    index: int
    logprobs: dict[str, object] | None
    finish_reason: str
    perpetune: dict[str, object]


class TextCompletion(BaseModel):
    """The body of the answers to all prompts."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[TextChoice]
    usage: Usage


@dataclass(frozen=True)
class TextReply:
    """Writes the answers to one prompt. `_lengths` has the number of characters streamed of each answer."""

    chat: Reply
    _lengths: dict[int, int] = field(default_factory=dict)

    def body(self, answers: Sequence[Answer]) -> bytes:
        choices = [
            self._choice(index, answer.text, self._logprobs(answer.logprobs, 0), answer.finish_reason, answer)
            for index, answer in enumerate(answers)
        ]
        return _JSON.encode({**self._head(), "choices": choices, "usage": token_usage(answers)}).encode()

    def beginning(self, count: int) -> bytes:
        return b""

    def piece(self, delta: Delta) -> bytes:
        before = self._lengths.get(delta.index, 0)
        self._lengths[delta.index] = before + len(delta.text)
        return self._chunk(self._choice(delta.index, delta.text, self._logprobs(delta.logprobs, before)))

    def end(self, answers: Sequence[Answer]) -> bytes:
        ends = [
            self._chunk(self._choice(index, "", None, answer.finish_reason, answer))
            for index, answer in enumerate(answers)
        ]
        if self.chat.include_usage:
            ends.append(event({**self._head(), "choices": [], "usage": token_usage(answers)}))
        return b"".join([*ends, DONE])

    def error(self, error: ApiError) -> bytes:
        return self.chat.error(error)

    def _head(self) -> dict[str, object]:
        return {
            "id": self.chat.id,
            "object": "text_completion",
            "created": self.chat.created,
            "model": self.chat.model,
        }

    def _chunk(self, choice: dict[str, object]) -> bytes:
        return event({**self._head(), "choices": [choice], **({"usage": None} if self.chat.include_usage else {})})

    def _choice(
        self,
        index: int,
        text: str,
        logprobs: dict[str, object] | None,
        finish_reason: str | None = None,
        answer: Answer | None = None,
    ) -> dict[str, object]:
        choice: dict[str, object] = {"text": text, "index": index, "logprobs": logprobs, "finish_reason": finish_reason}
        if answer is not None:
            choice["perpetune"] = {"request_id": self.chat.id, **self.chat.extension(answer)}
        return choice

    def _logprobs(self, tokens: Sequence[TokenLogprob] | None, offset: int) -> dict[str, object] | None:
        """Those of tokens whose text begins at `offset`."""
        if not self.chat.with_logprobs or tokens is None:
            return None
        offsets = [offset]
        for token in tokens:
            offsets.append(offsets[-1] + len(token.token))
        return {
            "tokens": [token.token for token in tokens],
            "token_logprobs": [max(token.logprob, -9999.0) for token in tokens],
            "top_logprobs": [{text: max(logprob, -9999.0) for text, logprob in token.top} for token in tokens],
            "text_offset": offsets[:-1],
        }


def read_text_request(body: bytes) -> tuple[ChatRequest, WriteAs]:
    """The chat request of a body with one prompt, and how its answers are written. Raises ApiError."""
    request = _parse(body)
    given = request.model_dump(include={*_SAME, "stream", "stream_options"}, exclude_none=True)
    asked = {
        **given,
        "messages": [{"role": "user", "content": prompt} for prompt in request.prompts],
        "max_tokens": request.max_tokens,
        "logprobs": request.logprobs is not None or None,
        "top_logprobs": request.logprobs,
    }
    try:
        chat = ChatRequest.model_validate({name: value for name, value in asked.items() if value is not None})
    except ValidationError as fault:
        raise invalid(fault.errors(include_url=False), b"") from None

    def write(reply: Reply) -> Replies:
        return TextReply(reply)

    return chat, write


TEXT = Dialect("cmpl-", read_text_request, {"messages": "prompt"})


@dataclass(frozen=True)
class TextCompletions:
    """Answers `POST /v1/completions`. `answer` answers a request with one prompt."""

    answer: Callable[[Request, Dialect], Awaitable[Response]]

    async def respond(self, request: Request) -> Response:
        """Answer each prompt as a request of its own, all at once, with one reply."""
        body = await request.body()
        if not is_json(request.headers.get("content-type", "")):
            return await self.answer(_with_body(request, body), TEXT)
        asked = _parse(body)
        if len(asked.prompts) == 1:
            return await self.answer(_with_body(request, body), TEXT)
        if asked.stream:
            raise ApiError(400, "stream: send one prompt to stream its answer.", param="stream", code="invalid_value")
        try:
            whole = json.loads(body)
        except ValueError as fault:  # a number of thousands of digits, which pydantic reads
            raise ApiError(400, f"The body is not valid JSON: {fault}.", code="invalid_json") from None
        each = [json.dumps({**whole, "prompt": prompt}).encode() for prompt in asked.prompts]
        replies = await asyncio.gather(*(self.answer(_with_body(request, one), TEXT) for one in each))
        failed = next((reply for reply in replies if reply.status_code != 200), None)
        return failed or _merged([json.loads(bytes(reply.body)) for reply in replies])


def _parse(body: bytes) -> TextRequest:
    """Raises ApiError."""
    request = parse_json(TextRequest, body)
    for name, accepted in _UNSUPPORTED.items():
        if (request.model_extra or {}).get(name) not in accepted:
            raise ApiError(400, f"{name}: this parameter is not supported.", param=name, code="unsupported_parameter")
    if request.best_of not in (None, 1, request.n):
        message = "best_of: only the value of n is supported."
        raise ApiError(400, message, param="best_of", code="unsupported_parameter")
    return request


def _with_body(request: Request, body: bytes) -> Request:
    """The request with another body. What its client does then, such as going away, is still seen."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        return messages.pop() if messages else await request.receive()

    return Request(request.scope, receive)


def _merged(replies: Sequence[dict[str, Any]]) -> Response:
    """One reply with the choices of all, which is named after the first."""
    choices = [choice for reply in replies for choice in reply["choices"]]
    usage = {name: sum(reply["usage"][name] for reply in replies) for name in replies[0]["usage"]}
    numbered = [{**choice, "index": index} for index, choice in enumerate(choices)]
    whole = {**replies[0], "choices": numbered, "usage": usage}
    headers = {"x-request-id": str(whole["id"])}
    return Response(_JSON.encode(whole).encode(), headers=headers, media_type="application/json")
