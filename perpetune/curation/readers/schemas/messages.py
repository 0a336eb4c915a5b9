"""Conversations in the ways that others write them, as OpenAI's messages."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from perpetune.curation.readers.json_values import decoded, repeated_in

_ROLES = {
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "ai": "assistant",
    "model": "assistant",
    "observation": "tool",
    "function_response": "tool",
    "tool_response": "tool",
}

Turn = dict[str, Any]


def conversation_of(value: object) -> list[Turn] | None:
    """The turns of a list of messages, or of an object with one; None if the value is something else."""
    if isinstance(value, Mapping):
        return conversation_of(value["messages"]) if "messages" in value else None
    if not isinstance(value, list) or not value or not all(_is_turn(each) for each in value):
        return None
    return [turn_of(each) for each in value]


def parsed(value: object) -> object:
    """JSON text as its value if that is a list or an object without a repeated key; anything else unchanged."""
    if not isinstance(value, str) or not value.lstrip().startswith(("[", "{")):
        return value
    try:
        found = decoded(value)
        return value if repeated_in(found) else found
    except (ValueError, RecursionError):
        return value


def answer_turn(value: object) -> Turn | None:
    """The assistant's turn in an answer: a message, a list that ends with one, or a completion with `choices`."""
    if isinstance(value, list):
        turns = conversation_of(value)
        return turns[-1] if turns and turns[-1]["role"] == "assistant" else None
    if not isinstance(value, Mapping):
        return None
    choices = value.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], Mapping):
        return answer_turn(choices[0].get("message"))
    if "messages" in value:
        return answer_turn(value["messages"])
    return turn_of(value) if _is_turn(value) else None


def exchange(asked: object, answered: object) -> dict[str, object]:
    """An input and its output, either of which may be a text, a message or a conversation, as our fields."""
    conversation, answer = conversation_of(asked), answer_turn(answered)
    if conversation is None and answer is None:
        return {"input": asked, "output": answered}
    if conversation is None and isinstance(asked, Mapping) and _is_turn(asked):
        conversation = [turn_of(asked)]
    before = conversation or [{"role": "user", "content": asked}]
    return {"messages": [*before, answer or {"role": "assistant", "content": as_text(answered)}]}


def as_text(value: object) -> object:
    """Lists and objects as compact JSON; texts and nothing unchanged."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")) if isinstance(value, (list, dict)) else value


def turn_of(turn: Mapping[str, Any]) -> Turn:
    """One turn of OpenAI's, ShareGPT's (`from`, `value`) or OpenTelemetry's (`parts`) format."""
    who = turn.get("role", turn.get("from"))
    if who == "function_call":
        return {"role": "assistant", "tool_calls": [_function_call(turn.get("value", turn.get("content")))]}
    role = _ROLES.get(who, who) if isinstance(who, str) else who
    if "parts" in turn:
        return _from_parts(role, turn["parts"])
    kept = {
        key: turn[key] for key in ("tool_calls", "tool_call_id", "function_call", "weight", "refusal") if key in turn
    }
    return {"role": role, "content": turn.get("content", turn.get("value")), **kept}


def tools_of(values: Mapping[str, Any]) -> object:
    """OpenAI's `tools`, or its older `functions` as such; None if there are none."""
    tools, functions = parsed(values.get("tools")), parsed(values.get("functions"))
    if not tools and isinstance(functions, list):
        return [{"type": "function", "function": each} for each in functions]
    return tools


def _is_turn(value: object) -> bool:
    if not isinstance(value, Mapping) or not isinstance(value.get("role", value.get("from")), str):
        return False
    return any(key in value for key in ("content", "value", "parts", "tool_calls", "function_call", "refusal"))


def _function_call(value: object) -> Turn:
    call = parsed(value)
    function = call if isinstance(call, Mapping) else {"name": "", "arguments": value}
    return {"id": "call_0", "type": "function", "function": dict(function)}


def _from_parts(role: object, parts: object) -> Turn:
    """OpenTelemetry's parts: texts, tool calls, and responses of tools."""
    found = [part for part in parts if isinstance(part, Mapping)] if isinstance(parts, list) else []
    texts = [part.get("content") for part in found if part.get("type") == "text"]
    turn: Turn = {"role": role, "content": "\n\n".join(text for text in texts if isinstance(text, str))}
    calls = [part for part in found if part.get("type") == "tool_call"]
    if calls:
        turn["tool_calls"] = [_call_of_part(part) for part in calls]
    response = next((part for part in found if part.get("type") == "tool_call_response"), None)
    if response:
        answer = response.get("response", response.get("result"))
        turn |= {"role": "tool", "content": as_text(answer), "tool_call_id": response.get("id")}
    others = {str(part.get("type")) for part in found} - {"text", "tool_call", "tool_call_response", "reasoning"}
    return {**turn, "content": [{"type": kind} for kind in sorted(others)]} if others else turn


def _call_of_part(part: Mapping[str, Any]) -> Turn:
    arguments = part.get("arguments")
    written = arguments if isinstance(arguments, str) else json.dumps(arguments or {}, ensure_ascii=False)
    return {"id": part.get("id"), "type": "function", "function": {"name": part.get("name"), "arguments": written}}
