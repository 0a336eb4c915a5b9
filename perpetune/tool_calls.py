"""Tool calls as the output of a row: canonical JSON of names and arguments, and how an answer's calls are read from text.

Ids are left out, because they are drawn by chance, and the keys of arguments are sorted, so that equal calls are equal texts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Call = dict[str, Any]
"""`{"name": ..., "arguments": {...}}`."""


def written(calls: Sequence[Mapping[str, Any]]) -> str:
    """OpenAI's tool calls as canonical JSON. Raises ValueError if one is no call of a function with arguments in JSON."""
    return json.dumps([_call_of(call) for call in calls], ensure_ascii=False, allow_nan=False)


def as_tool_calls(output: str) -> tuple[dict[str, Any], ...]:
    """Canonical JSON as OpenAI's tool calls, with arguments as values, as chat templates take them."""
    return tuple(
        {"id": f"call_{number}", "type": "function", "function": call} for number, call in enumerate(json.loads(output))
    )


def hermes(output: str) -> str:
    """The calls as NousResearch's Hermes models write them, which many templates do too."""
    return "\n".join(
        f"<tool_call>\n{json.dumps(call, ensure_ascii=False)}\n</tool_call>" for call in json.loads(output)
    )


def same_calls(expected: str, answer: str) -> float:
    """1 if the answer calls the same tools with equal arguments, in any order of calls, else 0.

    `expected` is canonical JSON; `answer` is that too, or what a model wrote: JSON objects with `name` and `arguments` (or
    `parameters`), each between tags or not, or lists of them.
    """
    return float(_sorted(json.loads(expected)) == _sorted(calls_in(answer)))


def calls_in(text: str) -> list[Call]:
    """The calls in a text; [] if there are none."""
    return [
        {"name": value["name"], "arguments": _arguments(value.get("arguments", value.get("parameters", {})))}
        for found in _json_values(text)
        for value in (found if isinstance(found, list) else [found])
        if isinstance(value, Mapping) and isinstance(value.get("name"), str)
    ]


def _call_of(call: Mapping[str, Any]) -> Call:
    function = call.get("function")
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(name, str) or not name:
        raise ValueError("function.name: missing")
    arguments = function.get("arguments")
    if isinstance(arguments, str) and arguments.strip():
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            raise ValueError(f"function.arguments: is no JSON: {arguments!r:.60}") from None
    arguments = {} if arguments in (None, "") else arguments
    if not isinstance(arguments, Mapping):
        raise ValueError("function.arguments: must be a JSON object")
    return {"name": name, "arguments": _with_sorted_keys(arguments)}


def _with_sorted_keys(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _with_sorted_keys(value[key]) for key in sorted(value, key=str)}
    return [_with_sorted_keys(each) for each in value] if isinstance(value, list) else value


def _arguments(value: object) -> object:
    """Some models write the arguments as JSON in a string."""
    if isinstance(value, str):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return {} if value is None else value


def _json_values(text: str) -> Iterator[object]:
    """The JSON objects and lists in a text, one after the other."""
    decoder, start = json.JSONDecoder(), 0
    while (found := _opening(text, start)) is not None:
        try:
            value, start = decoder.raw_decode(text, found)
        except (ValueError, RecursionError):
            start = found + 1
            continue
        yield value


def _opening(text: str, start: int) -> int | None:
    return min((place for bracket in "[{" if (place := text.find(bracket, start)) >= 0), default=None)


def _sorted(calls: Sequence[Mapping[str, Any]]) -> list[str]:
    return sorted(_plain(call) for call in calls)


def _plain(value: object) -> str:
    """JSON in which numbers are equal by value: 1 and 1.0."""
    return json.dumps(_with_plain_numbers(value), sort_keys=True, ensure_ascii=False)


def _with_plain_numbers(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _with_plain_numbers(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_with_plain_numbers(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
