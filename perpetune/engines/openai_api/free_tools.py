"""Tool calls that a model writes of its own accord, read from its text while it is streamed.

A call is JSON with `name` and `arguments` (or `parameters`), as chat templates and Hermes' format write it, that names a tool
of the request. Other JSON is part of the text.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from perpetune.generation.answer import Answer, TokenLogprob
from perpetune.generation.parameters import Delta, GenerationConfig, OnDelta
from perpetune.tool_calls import Call, may_become_a_call, split_calls

_OPENERS = re.compile(r"[<\[{]")
_SPACE_AT_END = re.compile(r"\s*\Z")


@dataclass
class _Held:
    """What was written and not yet sent of one answer."""

    text: str = ""
    logprobs: tuple[TokenLogprob, ...] | None = None
    tokens: int = 0
    sent: int = 0  # characters


@dataclass(frozen=True)
class FreeTools:
    """The names of the tools that the model may call. `_held` has what waits, for each answer."""

    names: frozenset[str]
    _held: dict[int, _Held] = field(default_factory=dict)

    def on_delta(self, send: OnDelta) -> OnDelta:
        """A callback that sends text on until a call may begin; what follows waits for the end."""

        def forward(delta: Delta) -> None:
            held = self._held.setdefault(delta.index, _Held())
            held.text += delta.text
            held.tokens += delta.tokens
            held.logprobs = _joined(held.logprobs, delta.logprobs)
            self._send(send, delta.index, held, held.text[: _certain(held.text)], delta)

        return forward

    def answers(self, written: Sequence[Answer], send: OnDelta | None) -> tuple[Answer, ...]:
        """The answers with their calls. Sends what waits to `send`."""
        found = tuple(map(self._called, written))
        if send is not None:
            for index, answer in enumerate(found):
                held = self._held.get(index, _Held())
                rest = answer.text[held.sent :]
                held.text = rest
                if rest or held.logprobs:
                    self._send(send, index, held, rest, Delta(index, ""))
                if answer.tool_calls:
                    numbered = tuple({"index": place, **call} for place, call in enumerate(answer.tool_calls))
                    send(Delta(index, "", tool_calls=numbered, tokens=held.tokens))
        return found

    def _send(self, send: OnDelta, index: int, held: _Held, text: str, delta: Delta) -> None:
        if not text and not (held.logprobs and delta.text == "" and not held.text):
            return
        send(replace(delta, index=index, text=text, logprobs=held.logprobs, tokens=held.tokens))
        held.text, held.sent = held.text[len(text) :], held.sent + len(text)
        held.logprobs, held.tokens = None, 0

    def _called(self, answer: Answer) -> Answer:
        text, calls = split_calls(answer.text, self.names)
        if not calls:
            return answer
        reason = "tool_calls" if answer.finish_reason == "stop" else answer.finish_reason
        return replace(answer, text=text, tool_calls=tuple(map(_as_openai, calls)), finish_reason=reason)


def free_tools(generation: GenerationConfig) -> FreeTools | None:
    """The tools that the model may call of its own accord; None if there are none, or a schema says what it writes."""
    if generation.tools is None or generation.json_schema is not None:
        return None
    functions = [tool.get("function") for tool in json.loads(generation.tools)]
    names = frozenset(str(each["name"]) for each in functions if isinstance(each, Mapping))
    return FreeTools(names) if names else None


def _certain(text: str) -> int:
    """How many characters of the beginning are text, whatever follows: no call begins there, and no space before one."""
    begun = (found.start() for found in _OPENERS.finditer(text) if may_become_a_call(text[found.start() :]))
    certain = text[: next(begun, len(text))]
    space = _SPACE_AT_END.search(certain)
    return space.start() if space else len(certain)


def _joined(
    one: tuple[TokenLogprob, ...] | None, other: tuple[TokenLogprob, ...] | None
) -> tuple[TokenLogprob, ...] | None:
    return one if other is None else (*(one or ()), *other)


def _as_openai(call: Call) -> dict[str, object]:
    arguments = json.dumps(call["arguments"], ensure_ascii=False)
    return {
        "id": f"call_{uuid.uuid4().hex[:24]}",
        "type": "function",
        "function": {"name": call["name"], "arguments": arguments},
    }
