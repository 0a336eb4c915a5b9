"""Validation of one row: an Example, or InvalidRow with a reason."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time
from typing import Literal

from pydantic import ValidationError

from perpetune.curation.rows.sources import TRAFFIC
from perpetune.curation.text import fingerprint, normalised
from perpetune.records import Example, Message, last_user_message, parse_time
from perpetune.tool_calls import written

MAX_CHARS = 1_000_000
"""Longer texts are rejected as mistakes, because every later step would pay for them."""

_SURROGATES = re.compile("[\ud800-\udfff]")
_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool"}
_OLD_ROLES = {"function": "tool"}


class InvalidRow(Exception):
    """Why a row is no valid example; `field` is None if the whole row is invalid."""

    def __init__(self, field: str | None, reason: str) -> None:
        self.field = field
        self.reason = reason
        super().__init__(f"{field}: {reason}")


def example_of(row: Mapping[str, object], source: str) -> Example:
    """Validate `{"input", "output", ...}` or OpenAI's `{"messages": [...]}`. Raises InvalidRow.

    Both may have `references`, other correct outputs. Unknown keys are ignored. A missing id becomes the hash of the
    content, a missing group the hash of the normalised input, so that equal inputs are never in two splits.
    """
    if is_absent(row.get("output")) and not is_absent(row.get("messages")):
        conversation, output, answers_with, said = _chat(row["messages"])
    else:
        conversation, output, answers_with, said = _prompted(row), _output(row.get("output")), "text", ""
    input = last_user_message(conversation)
    # A single user message is redundant with the input.
    messages = conversation if len(conversation) > 1 else ()
    try:
        return Example(
            input=input,
            output=output,
            id=_name(row, "id") or content_id(input, output, messages, said),
            group=_name(row, "group") or fingerprint(normalised(input)),
            time=time_of(row, "time"),
            source=_name(row, "source") or source,
            messages=messages,
            references=_references(row.get("references"), output),
            answers_with=answers_with,
            tools=_tools(row.get("tools")),
            said=said,
            weight=_weight(row.get("weight")) if source == TRAFFIC else 1.0,
        )
    except ValidationError as fault:
        error = fault.errors()[0]
        raise InvalidRow(str(error["loc"][0]), error["msg"]) from None


def _weight(value: object) -> float:
    """What a request of production counts. A user's own column of that name means something else."""
    return 1.0 if is_absent(value) or not isinstance(value, int | float) else float(value)


def content_id(input: str, output: str, messages: Sequence[Message], said: str = "") -> str:
    """The id of a row that has none: a hash of its content."""
    return fingerprint(input, output, [_identity(message) for message in messages], *filter(None, [said]))


def _identity(message: Message) -> list[object]:
    calls = [value for value in (message.tool_calls, message.tool_call_id) if value]
    return [message.role, message.content, *calls]


def _chat(value: object) -> tuple[tuple[Message, ...], str, Literal["text", "tool_calls"], str]:
    """The conversation before the answer, the answer, what it is, and the text before tool calls."""
    messages = _messages(_learned(value))
    if not messages:
        raise InvalidRow("messages", "must hold a user's and an assistant's message")
    last = f"messages[{len(messages) - 1}]"
    if messages[-1].role != "assistant":
        raise InvalidRow("messages", f"the last message must be the assistant's, it is of role {messages[-1].role!r}")
    if messages[-1].tool_calls:
        calls = _written(messages[-1].tool_calls, f"{last}.tool_calls")
        return _answerable(messages[:-1]), calls, "tool_calls", messages[-1].content.strip()
    return _answerable(messages[:-1]), _text(messages[-1].content, f"{last}.content"), "text", ""


def _written(calls: Sequence[Mapping[str, object]], field: str) -> str:
    try:
        return written(calls)
    except ValueError as fault:
        raise InvalidRow(field, str(fault)) from None


def _tools(value: object) -> str | None:
    """OpenAI's list of tools as JSON; None if there is no such list."""
    if not isinstance(value, list) or not value or not all(isinstance(tool, Mapping) for tool in value):
        return None
    try:
        return json.dumps(value, ensure_ascii=False, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        raise InvalidRow("tools", "cannot be written as JSON") from None


def _learned(value: object) -> object:
    """The conversation up to the last answer that is to be learned.

    OpenAI's `weight` of 0 marks an answer that is not. Earlier answers count only if they say `weight: 1`.
    """
    if not isinstance(value, list) or not value or not isinstance(value[-1], Mapping):
        return value
    for position, turn in enumerate(value):
        weight = turn.get("weight") if isinstance(turn, Mapping) else None
        if not (is_absent(weight) or weight in (0, 1)):
            raise InvalidRow(f"messages[{position}].weight", f"must be 0 or 1, got {weight!r:.40}")
    if value[-1].get("weight") != 0:
        return value
    for end in range(len(value) - 1, 0, -1):
        turn = value[end - 1]
        if isinstance(turn, Mapping) and turn.get("role") == "assistant" and turn.get("weight"):
            return value[:end]
    raise InvalidRow(f"messages[{len(value) - 1}].weight", "0: the answer is marked as not to be learned")


def _prompted(row: Mapping[str, object]) -> tuple[Message, ...]:
    """The conversation before the output, of a row that has `input` and perhaps `messages`."""
    input = _text(row.get("input"), "input")
    if is_absent(row.get("messages")):
        return (Message(role="user", content=input),)
    conversation = _answerable(_messages(row["messages"]))
    if last_user_message(conversation) != input:
        raise InvalidRow(
            "messages", "beside `output`, the last message must be the user's with the same text as `input`"
        )
    return conversation


def _answerable(conversation: tuple[Message, ...]) -> tuple[Message, ...]:
    """The conversation before an answer: it ends with the user, or with the results of tools that the user's turn led to."""
    asked = any(message.role == "user" for message in conversation)
    if not asked or conversation[-1].role not in ("user", "tool"):
        raise InvalidRow("messages", "there must be a user's message right before the answer")
    return conversation


def _messages(value: object) -> tuple[Message, ...]:
    if not isinstance(value, list) or not value:
        raise InvalidRow("messages", "must be a list of at least one message")
    return tuple(
        _message(part, f"messages[{position}]") for position, part in enumerate(value) if not _is_blank_system(part)
    )


def _is_blank_system(value: object) -> bool:
    """Many exports begin with an empty system message, which is dropped."""
    return isinstance(value, Mapping) and value.get("role") == "system" and value.get("content") in ("", None)


def _message(value: object, field: str) -> Message:
    if not isinstance(value, Mapping):
        raise InvalidRow(field, f"must be an object with role and content, got {_kind(value)}")
    role = value.get("role")
    role = _OLD_ROLES.get(role, role) if isinstance(role, str) else role
    if not isinstance(role, str) or role not in _ROLES:
        raise InvalidRow(f"{field}.role", f"must be one of {', '.join(_ROLES)}, got {role!r:.40}")
    calls = _tool_calls(_calls_in(value), f"{field}.tool_calls")
    if is_absent(value.get("content")) and isinstance(value.get("refusal"), str) and calls is None:
        raise InvalidRow(f"{field}.refusal", "the model refused, and there is no answer in `content`")
    content = _joined_parts(value.get("content"), f"{field}.content")
    if calls is None or not (is_absent(content) or content == ""):
        content = _text(content, f"{field}.content")
    return Message.model_validate(
        {
            "role": _ROLES[role],
            "content": content or "",
            "tool_calls": calls,
            "tool_call_id": _name({f"{field}.tool_call_id": value.get("tool_call_id")}, f"{field}.tool_call_id"),
        }
    )


def _calls_in(message: Mapping[str, object]) -> object:
    """`tool_calls`, or OpenAI's older `function_call` as one."""
    old = message.get("function_call")
    if is_absent(message.get("tool_calls")) and isinstance(old, Mapping):
        return [{"id": "call_0", "type": "function", "function": dict(old)}]
    return message.get("tool_calls")


def _tool_calls(value: object, field: str) -> list[dict[str, object]] | None:
    """The tool calls of an assistant's turn, which may have no text."""
    if is_absent(value) or value == []:
        return None
    if not isinstance(value, list) or not all(isinstance(call, Mapping) for call in value):
        raise InvalidRow(field, "must be a list of objects")
    try:
        _text(json.dumps(value, ensure_ascii=False, allow_nan=False), field)
    except (TypeError, ValueError, RecursionError):
        raise InvalidRow(field, "cannot be written as JSON") from None
    return [dict(call) for call in value]


def _joined_parts(content: object, field: str) -> object:
    """OpenAI's content parts `[{"type": "text", "text": ...}]` as one text."""
    if not isinstance(content, list):
        return content
    parts = [part.get("text") if isinstance(part, Mapping) else None for part in content]
    if not all(isinstance(part, str) for part in parts):
        raise InvalidRow(field, f"has parts that are not text: {_kinds_of(content)}")
    return "".join(str(part) for part in parts)


def _kinds_of(parts: Sequence[object]) -> str:
    """The types of the parts that are no text, such as image_url."""
    others = [part for part in parts if not isinstance(part, Mapping) or not isinstance(part.get("text"), str)]
    kinds = dict.fromkeys(str(part.get("type")) if isinstance(part, Mapping) else _kind(part) for part in others)
    return ", ".join(list(kinds)[:5])[:80]


def _output(value: object, field: str = "output") -> str:
    """The output as text: dates and times in ISO 8601, other values than strings as compact JSON."""
    if isinstance(value, date | time):
        return value.isoformat()
    if is_absent(value) or isinstance(value, str):
        return _text(value, field)
    if isinstance(value, float) and math.isinf(value):
        raise InvalidRow(field, "is an infinite number")
    try:
        written = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=_iso_8601)
    except (TypeError, ValueError, RecursionError):
        raise InvalidRow(field, f"cannot be written as JSON: {_kind(value)}") from None
    return _text(written, field)


def _iso_8601(value: object) -> str:
    """Dates and times inside of an output, as tables have them. Raises TypeError for anything else."""
    if isinstance(value, date | time):
        return value.isoformat()
    raise TypeError(f"{_kind(value)} is no JSON")


def _references(value: object, output: str) -> tuple[str, ...]:
    """Other correct outputs: a list, or (in CSV) a JSON list."""
    if is_absent(value) or value == "":
        return ()
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise InvalidRow("references", f'must be a JSON list such as ["one", "other"], got {value!r:.60}') from None
    if not isinstance(value, list):
        raise InvalidRow("references", f"must be a list of outputs, got {_kind(value)}")
    others = [_output(one, f"references[{number}]") for number, one in enumerate(value)]
    return tuple(one for one in dict.fromkeys(others) if one != output)


def _text(value: object, field: str) -> str:
    if is_absent(value):
        raise InvalidRow(field, "missing")
    if not isinstance(value, str):
        raise InvalidRow(field, f"must be text, got {_kind(value)}")
    if not value.strip():
        raise InvalidRow(field, "empty")
    if len(value) > MAX_CHARS:
        raise InvalidRow(field, f"{len(value):,} characters long, at most {MAX_CHARS:,} are allowed")
    if "\0" in value:
        raise InvalidRow(field, "contains a NUL character")
    if _SURROGATES.search(value):
        raise InvalidRow(field, "contains a lone surrogate, which cannot be encoded")
    return value


def _name(row: Mapping[str, object], field: str) -> str | None:
    value = row.get(field)
    if is_absent(value) or value == "":
        return None
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        # A table writes the id 1 as 1.0 if another row has none.
        return str(int(value) if isinstance(value, float) and value.is_integer() else value)
    return _text(value, field).strip()


def time_of(row: Mapping[str, object], field: str) -> datetime | None:
    """The time in this field, None if it is empty. Raises InvalidRow."""
    value = row.get(field)
    if is_absent(value) or value == "":
        return None
    text = value.isoformat() if isinstance(value, date) else value
    if not isinstance(text, str):
        raise InvalidRow(field, f"must be an ISO 8601 time such as 2024-05-01T12:00:00Z, got {_kind(value)}")
    try:
        return parse_time(text.strip())
    except ValueError:
        raise InvalidRow(field, f"must be an ISO 8601 time such as 2024-05-01T12:00:00Z, got {text!r:.60}") from None


def is_absent(value: object) -> bool:
    """Whether the value is missing; tables write missing numbers as NaN."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def _kind(value: object) -> str:
    names = {bool: "a boolean", int: "a number", float: "a number", list: "a list", dict: "an object", bytes: "bytes"}
    return names.get(type(value), type(value).__name__)
