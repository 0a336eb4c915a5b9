"""Text that every database, tokenizer and client can hold."""

from __future__ import annotations

import re

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


def storable(text: str) -> str:
    """The text with U+FFFD for what cannot be held.

    That is NUL, which PostgreSQL refuses, and half a character (a lone surrogate), which UTF-8 cannot write.
    """
    return _UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", text)
