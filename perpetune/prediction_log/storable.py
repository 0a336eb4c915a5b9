"""Text that every database, tokenizer and client can hold."""

from __future__ import annotations

import re
from typing import Any

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


def storable(text: str) -> str:
    """The text with U+FFFD for what cannot be held.

    That is NUL, which PostgreSQL refuses, and half a character (a lone surrogate), which UTF-8 cannot write.
    """
    return _UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def storable_tree(value: Any) -> Any:
    """The same of every text in dicts, lists and tuples, which become lists."""
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, dict):
        return {storable(name): storable_tree(content) for name, content in value.items()}
    return [storable_tree(content) for content in value] if isinstance(value, list | tuple) else value
