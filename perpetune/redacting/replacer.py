"""Replacing what is found in texts, in messages with their tool calls, and in JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from typing import Any

from perpetune.records import Message
from perpetune.redacting.folded_text import fold
from perpetune.redacting.found import Found
from perpetune.redacting.personal_data import Find
from perpetune.redacting.secret_patterns import NAME as SECRET
from perpetune.redacting.secret_patterns import find_secrets, is_named_secret

Placeholder = Callable[[str, str], str]
"""What stands in place of a value, by its kind and the value."""

_MAY_MATCH = re.compile(r"[\d@]|::|PRIVATE KEY|hf_[A-Za-z]{30}")  # all that patterns find contains one of these
_PLACEHOLDER = re.compile(r"<[A-Z][A-Z_]*(?:_\d+)?>")


def patterns_finder(personal_data: Find | None) -> Find:
    """What finds personal data, if it is given, and secrets."""

    def find(text: str) -> Iterable[Found]:
        if not _MAY_MATCH.search(text):
            return ()
        return (*(personal_data(text) if personal_data else ()), *find_secrets(text))

    return find


class Replacer:
    """Puts `placeholder(kind, value)` in place of what `find` finds. A placeholder that is there already stays."""

    def __init__(self, find: Find, placeholder: Placeholder) -> None:
        self._find = find
        self._placeholder = placeholder

    def text(self, text: str) -> str:
        """The text with placeholders for what is found, in any of Unicode's forms of it."""
        folded = fold(text)
        parts: list[str] = []
        end_before = 0
        for each in merged(self._find(_PLACEHOLDER.sub(_blank, folded.text))):
            start, end = folded.source_span(each.start, each.end)
            parts += text[end_before:start], self._placeholder(each.name, text[start:end])
            end_before = end
        return "".join((*parts, text[end_before:])) if parts else text

    def optional_text(self, text: str | None) -> str | None:
        return None if text is None else self.text(text)

    def message(self, message: Message) -> Message:
        calls = message.tool_calls
        return message.model_copy(
            update={
                "content": self.text(message.content),
                "tool_calls": None if calls is None else tuple(self._json_value(call) for call in calls),
                "tool_call_id": self.optional_text(message.tool_call_id),
            }
        )

    def written(self, output: str) -> str:
        """An output, which may be JSON or calls as JSON. It keeps its form if nothing is found."""
        value = _json(output)
        if value is None:
            return self.text(output)
        redacted = self._json_value(value)
        return output if redacted == value else json.dumps(redacted, ensure_ascii=False)

    def _json_value(self, value: Any) -> Any:
        """Redact JSON, and JSON inside its strings, such as the arguments of a tool call."""
        if isinstance(value, dict):
            return {self.text(name): self._named_value(name, content) for name, content in value.items()}
        if isinstance(value, list | tuple):
            return [self._json_value(content) for content in value]
        if isinstance(value, str):
            return self.written(value)
        if isinstance(value, int | float) and not isinstance(value, bool):
            written = str(value)
            redacted = self.text(written)
            return value if redacted == written else redacted
        return value

    def _named_value(self, name: str, value: Any) -> Any:
        """Redact a value of a JSON object; one that its name calls a secret as a whole."""
        if isinstance(value, str) and is_named_secret(name, value):
            return self._placeholder(SECRET, value)
        return self._json_value(value)


def merged(found: Iterable[Found]) -> list[Found]:
    """Merge overlapping ones; the one with the highest score gives the name."""
    merged: list[Found] = []
    for each in sorted(found, key=lambda each: (each.start, each.end, each.score, each.name)):
        if merged and each.start < merged[-1].end:
            before = merged[-1]
            best = each if each.score > before.score else before
            merged[-1] = Found(before.start, max(before.end, each.end), best.score, best.name)
        else:
            merged.append(each)
    return merged


def _blank(placeholder: re.Match[str]) -> str:
    """As long, and nothing in it that a pattern finds."""
    return f"<{'_' * (len(placeholder[0]) - 2)}>"


def _json(text: str) -> dict[str, Any] | list[Any] | None:
    if text[:1] not in ("{", "["):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict | list) else None
