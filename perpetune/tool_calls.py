"""Tool calls as the output of a row: canonical JSON of names and arguments, and how an answer's calls are read from text.

Ids are left out, because they are drawn by chance, and the keys of arguments are sorted, so that equal calls are equal texts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

Call = dict[str, Any]
"""`{"name": ..., "arguments": {...}}`."""

_MISTRAL = "TOOL_CALLS]"
_KEYS = frozenset({"name", "type", "id", "function", "arguments", "parameters"})
_KEY = re.compile(r'\{\s*(?:"(\w*)("?))?')
_TAG = re.compile(r"<[|/]?([A-Za-z_]*)")
_NAME = r"\w*(?:tool|function|python)\w*"
_OPENS = re.compile(rf"(?:<\|?{_NAME}\|?>|\[TOOL_CALLS\])\s*\Z", re.IGNORECASE)
_CLOSES = re.compile(rf"\s*(?:<[|/]{{0,2}}{_NAME}\|?>(?!\s*[\[{{])|</{_NAME}>|\[/TOOL_CALLS\])", re.IGNORECASE)


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


def split_calls(text: str, names: Collection[str]) -> tuple[str, list[Call]]:
    """The text without the calls of these tools, and the calls. Without a call the text is as it was.

    A call says its arguments, or stands between tags such as `<tool_call>`, which go with it. Other JSON stays.
    """
    parts, calls, end = [], [], 0
    for start, stop, value in _json_spans(text):
        before = _OPENS.search(text, end, start)
        found = _calls_of(value, names, tagged=before is not None)
        if found:
            parts.append(text[end : before.start() if before else start])
            calls += found
            closed = _CLOSES.match(text, stop)
            end = closed.end() if closed else stop
    if not calls:
        return text, []
    said = [part.strip() if number else part.rstrip() for number, part in enumerate([*parts, text[end:]])]
    return "\n".join(part for part in said if part.strip()), calls


def _calls_of(value: object, names: Collection[str], *, tagged: bool) -> list[Call]:
    """The calls in a JSON value: an object or a list of objects, all of which are calls of these tools; else none."""
    found = []
    for each in value if isinstance(value, list) else [value]:
        inner = each.get("function") if isinstance(each, Mapping) else None
        each = inner if isinstance(inner, Mapping) else each
        if not isinstance(each, Mapping) or each.get("name") not in names:
            return []
        if not (tagged or "arguments" in each or "parameters" in each):
            return []
        arguments = _arguments(each.get("arguments", each.get("parameters", {})))
        found.append({"name": each["name"], "arguments": arguments})
    return found


def may_become_a_call(text: str) -> bool:
    """Whether a text that begins with `<`, `[` or `{` may be a call, if more of it is written."""
    if text[0] == "<":
        tag = _TAG.match(text)
        return tag is None or tag.end() == len(text) or _is_of_tools(tag[1])
    if text[0] == "[":
        inner = text[1:].lstrip()
        mark = inner[: len(_MISTRAL)]
        return not inner or (inner[0] == "{" and may_become_a_call(inner)) or _MISTRAL.startswith(mark)
    key = _KEY.match(text)
    assert key is not None
    return key.end() == len(text) if not key[2] else key[1] in _KEYS


def _is_of_tools(tag: str) -> bool:
    return "tool" in tag.lower() or "function" in tag.lower()


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
    return (value for _, _, value in _json_spans(text))


def _json_spans(text: str) -> Iterator[tuple[int, int, object]]:
    """The JSON objects and lists in a text, with their places."""
    decoder, start = json.JSONDecoder(), 0
    while (found := _opening(text, start)) is not None:
        try:
            value, start = decoder.raw_decode(text, found)
        except (ValueError, RecursionError):
            start = found + 1
            continue
        yield found, start, value


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
