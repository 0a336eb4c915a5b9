"""A tool call that a request forces: the model writes JSON under the tool's schema, which becomes the call.

With `tool_choice` of one tool by name, or "required" with one tool, the JSON is the call's arguments. With "required" and
several tools it is `{"name": ..., "arguments": ...}`, whose name the grammar lets the model choose.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from perpetune.engines.engine import Unsupported
from perpetune.generation.answer import Answer
from perpetune.generation.parameters import Delta, GenerationConfig, OnDelta

_NOTHING: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}
# What the grammar makes of `_choice_of`, up to the arguments; the answer may be cut off after it.
_CHOSEN = re.compile(r'\s*\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"arguments"\s*:\s*')


@dataclass(frozen=True)
class ForcedTool:
    """`name` is None if the model chooses. `_ids` has the call's id for each answer."""

    name: str | None
    json_schema: str
    _ids: dict[int, str] = field(default_factory=dict)

    def generation(self, asked: GenerationConfig) -> GenerationConfig:
        """What the model is asked for instead."""
        return replace(asked, json_schema=self.json_schema, tool_choice=None)

    def on_delta(self, send: OnDelta) -> OnDelta:
        """A callback that sends text as pieces of a call's arguments. If the model chooses, nothing is sent until the end."""
        began: set[int] = set()

        def forward(delta: Delta) -> None:
            if self.name is None:
                return
            if delta.index not in began:
                began.add(delta.index)
                began_call = {"index": 0, **self._call(delta.index, self.name, "")}
                send(replace(delta, text="", logprobs=None, tool_calls=(began_call,), tokens=0))
            piece = {"index": 0, "function": {"arguments": delta.text}}
            send(replace(delta, text="", tool_calls=(piece,)))

        return forward

    def answers(self, written: Sequence[Answer], send: OnDelta | None) -> tuple[Answer, ...]:
        """The answers as calls. Sends each call to `send` if the model chose it."""
        called = tuple(self._called(index, answer) for index, answer in enumerate(written))
        if send is not None and self.name is None:
            for index, answer in enumerate(called):
                send(Delta(index, "", answer.logprobs, answer.tool_calls))
        return called

    def _called(self, index: int, answer: Answer) -> Answer:
        name, arguments = self._parts(answer.text)
        call = self._call(index, name, arguments)
        reason = "length" if answer.finish_reason == "length" else "tool_calls"
        return replace(answer, text="", tool_calls=(call,), finish_reason=reason)

    def _parts(self, text: str) -> tuple[str, str]:
        """The name and the arguments; "" for what is not written yet in an answer that was cut off."""
        if self.name is not None:
            return self.name, text
        chosen = _CHOSEN.match(text)
        if chosen is None:
            return "", ""
        arguments = text[chosen.end() :]
        try:
            arguments = json.dumps(json.loads(text)["arguments"], ensure_ascii=False)
        except ValueError:
            pass
        return str(json.loads(chosen[1])), arguments

    def _call(self, index: int, name: str, arguments: str) -> dict[str, object]:
        identity = self._ids.setdefault(index, f"call_{uuid.uuid4().hex[:24]}")
        return {"id": identity, "type": "function", "function": {"name": name, "arguments": arguments}}


def forced_tool(generation: GenerationConfig) -> ForcedTool | None:
    """The tool that the request forces; None if it leaves the model free. Raises Unsupported."""
    choice = None if generation.tool_choice is None else _json(generation.tool_choice)
    if choice in (None, "auto", "none"):
        return None
    functions = [tool["function"] for tool in json.loads(generation.tools or "[]")]
    if isinstance(choice, Mapping):
        functions = [each for each in functions if each["name"] == choice["function"]["name"]]
    if not functions:
        raise Unsupported("tool_choice", "there is no such tool")
    if len(functions) == 1:
        return ForcedTool(functions[0]["name"], json.dumps(_parameters(functions[0]), ensure_ascii=False))
    return ForcedTool(None, json.dumps(_choice_of(functions), ensure_ascii=False))


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text  # the bare word


def _parameters(function: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of a function's arguments, which are an object and have no other keys than those it names.

    JSON Schema allows others. A model that was not trained on tools would invent them until its tokens are spent.
    """
    schema = function.get("parameters") or _NOTHING
    closed: dict[str, Any] = _closed({"type": "object", **schema})
    return closed


def _closed(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_closed(each) for each in schema]
    if not isinstance(schema, Mapping):
        return schema
    # Each part of allOf would have to know the keys of the others.
    inner = {name: value if name in _OPEN else _closed(value) for name, value in schema.items()}
    if isinstance(schema.get("properties"), Mapping) and not _OTHER_KEYS & schema.keys():
        inner["additionalProperties"] = False
    return inner


_OPEN = {"allOf", "enum", "const", "default", "examples"}
_OTHER_KEYS = {"additionalProperties", "patternProperties", "allOf", "anyOf", "oneOf", "$ref"}


def _choice_of(functions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The schema of a call of any of the functions."""
    names = [f"tool{number}" for number in range(len(functions))]
    calls = [
        {
            "type": "object",
            "properties": {"name": {"const": function["name"]}, "arguments": {"$ref": f"#/$defs/{name}"}},
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for name, function in zip(names, functions, strict=True)
    ]
    parameters = {
        name: _moved(_parameters(function), f"#/$defs/{name}") for name, function in zip(names, functions, strict=True)
    }
    return {"anyOf": calls, "$defs": parameters}


def _moved(schema: Any, place: str) -> Any:
    """The schema with its references to itself as they are where it now lies."""
    if isinstance(schema, list):
        return [_moved(each, place) for each in schema]
    if not isinstance(schema, Mapping):
        return schema
    moved = {name: _moved(value, place) for name, value in schema.items()}
    reference = schema.get("$ref")
    if isinstance(reference, str) and reference.startswith("#"):
        moved["$ref"] = place + reference[1:]
    return moved
