"""Text that every database, tokenizer and client accepts."""

from __future__ import annotations

import re
from typing import Any

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


def storable(text: str) -> str:
    """The text with U+FFFD for NUL, which PostgreSQL rejects, and lone surrogates, which UTF-8 cannot encode."""
    return _UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def storable_tree(value: Any) -> Any:
    """Apply `storable` to every string in dicts, lists and tuples; tuples become lists."""
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, dict):
        return {storable(name): storable_tree(content) for name, content in value.items()}
    return [storable_tree(content) for content in value] if isinstance(value, list | tuple) else value
