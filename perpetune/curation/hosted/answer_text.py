"""The text of an assistant's turn, as a row's output has it."""

from __future__ import annotations

import json
from collections.abc import Mapping

from perpetune.curation.readers.schemas.messages import Turn, as_text, parsed


def learnable_text(turn: Turn) -> str:
    """As a row's output has it: the tool calls alone, if the turn has a text beside them."""
    return answer_text({**turn, "content": None} if functions_in(turn) else turn)


def answer_text(turn: Turn) -> str:
    """Its content, parts joined, or its tool calls or refusal if it has none; values that are no text as JSON."""
    content = turn.get("content")
    if content in (None, "", []) and (calls := functions_in(turn)):
        return json.dumps(calls, sort_keys=True, ensure_ascii=False)
    if isinstance(content, list) and content and all(_text_of(part) is not None for part in content):
        content = "".join(str(_text_of(part)) for part in content)
    if content in (None, "") and isinstance(turn.get("refusal"), str):
        return str(turn["refusal"])
    return "" if content is None else str(as_text(content))


def _text_of(part: object) -> str | None:
    if not isinstance(part, Mapping):
        return None
    found = part.get("text", part.get("refusal"))
    return found if isinstance(found, str) else None


def is_refused(completion: Mapping[str, object]) -> bool:
    """Whether a filter of the provider withheld the answer, so that it says nothing of the model."""
    choices = completion.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    return isinstance(first, Mapping) and first.get("finish_reason") == "content_filter"


def functions_in(turn: Turn) -> list[dict[str, object]]:
    """The name and arguments, as JSON values if they are JSON, of each tool call; OpenAI's old `function_call` is one."""
    calls = turn.get("tool_calls") or []
    functions = [call.get("function") for call in calls if isinstance(call, Mapping)]
    if not functions and isinstance(turn.get("function_call"), Mapping):
        functions = [turn["function_call"]]
    return [
        {"name": each.get("name"), "arguments": parsed(each.get("arguments") or {})}
        for each in functions
        if isinstance(each, Mapping)
    ]
