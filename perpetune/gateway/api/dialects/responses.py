"""Replies of OpenAI's Responses API: a whole response, or its events."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from perpetune.gateway.api.chat.chat_reply import Reply, token_logprobs
from perpetune.gateway.api.chat.chat_request import ChatRequest
from perpetune.gateway.api.dialects.dialect import Dialect, Replies, WriteAs
from perpetune.gateway.api.dialects.responses_request import ResponsesRequest, as_chat, read_request
from perpetune.gateway.api.errors import ApiError
from perpetune.generation.answer import Answer
from perpetune.generation.parameters import Delta

PATH = "/v1/responses"

Item = dict[str, Any]
_JSON = json.JSONEncoder(separators=(",", ":"))


@dataclass
class _Stream:
    """What was streamed so far: the number of the next event, the items in order, and the item of each call by its index."""

    sequence: int = 0
    items: list[Item] = field(default_factory=list)
    calls: dict[int, int] = field(default_factory=dict)
    logprobs: list[Any] = field(default_factory=list)


@dataclass(frozen=True)
class ResponsesReply:
    """Writes the answer to one request; `chat` has its id, version and so on."""

    chat: Reply
    request: ResponsesRequest
    _stream: _Stream = field(default_factory=_Stream)

    def body(self, answers: Sequence[Answer]) -> bytes:
        return _JSON.encode(self._response(answers[0], _items(self.chat, answers[0]))).encode()

    def beginning(self, count: int) -> bytes:
        response = self._response(None, [])
        return b"".join(self._event(f"response.{kind}", response=response) for kind in ("created", "in_progress"))

    def piece(self, delta: Delta) -> bytes:
        events: list[bytes] = []
        if delta.text or (delta.logprobs and not delta.tool_calls):
            events += self._text_piece(delta)
        for call in delta.tool_calls:
            events += self._call_piece(call)
        return b"".join(events)

    def end(self, answers: Sequence[Answer]) -> bytes:
        """The ends of all items, then of the response."""
        is_empty = not self._stream.items and not answers[0].tool_calls
        events = [*self._begin_text()] if is_empty else []
        for index, item in enumerate(self._stream.items):
            events += self._item_end(index, item, answers[0])
        response = self._response(answers[0], self._stream.items)
        return b"".join([*events, self._event(f"response.{response['status']}", response=response)])

    def error(self, error: ApiError) -> bytes:
        said = {"code": error.code, "message": str(error), "param": error.param}
        failed = self._response(None, self._stream.items) | {"status": "failed", "error": said}
        return self._event("error", **said) + self._event("response.failed", response=failed)

    def _text_piece(self, delta: Delta) -> Iterator[bytes]:
        if not any(item["type"] == "message" for item in self._stream.items):
            yield from self._begin_text()
        index = next(number for number, item in enumerate(self._stream.items) if item["type"] == "message")
        item = self._stream.items[index]
        item["content"][0]["text"] += delta.text
        logprobs = token_logprobs(delta.logprobs or ()) if self.chat.with_logprobs else []
        item["content"][0]["logprobs"] += logprobs
        place = {"item_id": item["id"], "output_index": index, "content_index": 0}
        yield self._event("response.output_text.delta", **place, delta=delta.text, logprobs=logprobs)

    def _begin_text(self) -> Iterator[bytes]:
        item = _message(self.chat, "", (), "in_progress")
        index = len(self._stream.items)
        yield self._event("response.output_item.added", output_index=index, item={**item, "content": []})
        self._stream.items.append(item)
        place = {"item_id": item["id"], "output_index": index, "content_index": 0}
        yield self._event("response.content_part.added", **place, part=item["content"][0])

    def _call_piece(self, call: dict[str, Any]) -> Iterator[bytes]:
        number = call.get("index", len(self._stream.calls))
        if number not in self._stream.calls:
            self._stream.calls[number] = len(self._stream.items)
            item = _function_call({**call, "function": {**call["function"], "arguments": ""}}, "in_progress")
            yield self._event("response.output_item.added", output_index=len(self._stream.items), item=item)
            self._stream.items.append(item)
        index = self._stream.calls[number]
        item = self._stream.items[index]
        if arguments := (call.get("function") or {}).get("arguments"):
            item["arguments"] += arguments
            place = {"item_id": item["id"], "output_index": index}
            yield self._event("response.function_call_arguments.delta", **place, delta=arguments)

    def _item_end(self, index: int, item: Item, answer: Answer) -> Iterator[bytes]:
        item["status"] = _status(answer)
        place = {"item_id": item["id"], "output_index": index}
        if item["type"] == "message":
            part = item["content"][0]
            text = {"text": part["text"], "logprobs": part["logprobs"]}
            yield self._event("response.output_text.done", **place, content_index=0, **text)
            yield self._event("response.content_part.done", **place, content_index=0, part=part)
        else:
            said = {"name": item["name"], "arguments": item["arguments"]}
            yield self._event("response.function_call_arguments.done", **place, **said)
        yield self._event("response.output_item.done", output_index=index, item=item)

    def _event(self, kind: str, **content: object) -> bytes:
        event = {"type": kind, "sequence_number": self._stream.sequence, **content}
        self._stream.sequence += 1
        return f"event: {kind}\ndata: {_JSON.encode(event)}\n\n".encode()

    def _response(self, answer: Answer | None, items: Sequence[Item]) -> dict[str, Any]:
        """The response; while `answer` is None it is in progress."""
        status = "in_progress" if answer is None else _status(answer)
        asked = self.request
        return {
            "id": self.chat.id,
            "object": "response",
            "created_at": self.chat.created,
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "instructions": asked.instructions,
            "max_output_tokens": asked.max_output_tokens,
            "metadata": asked.metadata or {},
            "model": self.chat.model,
            "output": list(items),
            "parallel_tool_calls": asked.parallel_tool_calls is not False,
            "previous_response_id": None,
            "reasoning": {"effort": None, "summary": None},
            "store": False,
            "temperature": asked.temperature or 0.0,
            "text": _text_options(asked),
            "tool_choice": asked.model_dump(include={"tool_choice"})["tool_choice"] or "auto",
            "tools": [tool.model_dump() for tool in asked.tools or ()],
            "top_p": 1.0 if asked.top_p is None else asked.top_p,
            "truncation": "disabled",
            "usage": None if answer is None else _usage(answer),
            "user": asked.user,
            **({} if answer is None else {"perpetune": self.chat.extension(answer)}),
        }


def read_responses(body: bytes) -> tuple[ChatRequest, WriteAs]:
    """The chat request that a body means, and how its answer is written. Raises ApiError."""
    request = read_request(body)

    def write(reply: Reply) -> Replies:
        return ResponsesReply(reply, request)

    return as_chat(request), write


RESPONSES = Dialect(
    "resp_",
    read_responses,
    {"messages": "input", "response_format": "text.format", "max_completion_tokens": "max_output_tokens"},
)


def _items(chat: Reply, answer: Answer) -> list[Item]:
    calls = [_function_call(call, _status(answer)) for call in answer.tool_calls]
    if calls and not answer.text:
        return calls
    return [_message(chat, answer.text, answer.logprobs or (), _status(answer)), *calls]


def _message(chat: Reply, text: str, logprobs: Iterable[Any], status: str) -> Item:
    written = token_logprobs(tuple(logprobs)) if chat.with_logprobs else []
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": written}
    return {"id": _new_id("msg"), "type": "message", "status": status, "role": "assistant", "content": [part]}


def _function_call(call: dict[str, Any], status: str) -> Item:
    function = call["function"]
    return {
        "id": _new_id("fc"),
        "type": "function_call",
        "status": status,
        "call_id": call.get("id") or _new_id("call"),
        "name": function.get("name") or "",
        "arguments": function.get("arguments") or "",
    }


def _text_options(asked: ResponsesRequest) -> dict[str, Any]:
    wanted = asked.text.format if asked.text else None
    return {"format": {"type": "text"} if wanted is None else wanted.model_dump(by_alias=True)}


def _status(answer: Answer) -> str:
    return "incomplete" if answer.finish_reason == "length" else "completed"


def _usage(answer: Answer) -> dict[str, Any]:
    return {
        "input_tokens": answer.prompt_tokens,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": answer.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": answer.prompt_tokens + answer.completion_tokens,
    }


def _new_id(kind: str) -> str:
    return f"{kind}_{uuid.uuid4().hex}"
