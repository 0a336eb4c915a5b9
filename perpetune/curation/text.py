"""Cleaning, normalising, shortening and hashing of texts."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Callable

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # category Cc, but for line feeds and tabs
_BYTE_ORDER_MARK = "\ufeff"
_JOINERS = {"\u200c", "\u200d"}  # part of the spelling of Persian and Hindi words, and of emoji


def tidy(text: str) -> str:
    """The text in Unicode NFC, with Unix line ends, without control characters and surrounding whitespace."""
    unix = text.replace("\r\n", "\n").replace("\r", "\n").replace(_BYTE_ORDER_MARK, "")
    return unicodedata.normalize("NFC", _CONTROLS.sub("", unix)).strip()


def normalised(text: str) -> str:
    """The text in one case, whitespace and Unicode form, for comparisons."""
    return " ".join(unicodedata.normalize("NFC", text.casefold()).split())


def visible(text: str) -> str:
    """The text without characters that show nothing, such as zero-width spaces, and without surrounding whitespace."""
    if text.isprintable():  # and so without any of the category Cf
        return text.strip()
    return "".join(c for c in text if c in _JOINERS or unicodedata.category(c) != "Cf").strip()


def fingerprint(*parts: object) -> str:
    """The first 16 hex digits of the SHA-256 of the parts, which must be JSON values."""
    return hashlib.sha256(_json(parts).encode()).hexdigest()[:16]


def _json(value: object) -> str:
    """As `json.dumps(value, ensure_ascii=False)`, which sets up an encoder each time, at five times the cost."""
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(map(_json, value))}]"
    return str(value) if type(value) is int else json.dumps(value, ensure_ascii=False)


_quoted: Callable[[str], str] = json.encoder.encode_basestring


def around_change(before: str, after: str, limit: int = 160) -> tuple[str, str]:
    """Both texts from shortly before the first place at which they differ, shortened."""
    same = next((place for place, (one, other) in enumerate(zip(before, after, strict=False)) if one != other), None)
    start = max(0, (min(len(before), len(after)) if same is None else same) - limit // 4)
    lead = "…" if start else ""
    return shortened(lead + before[start:], limit), shortened(lead + after[start:], limit)


def shortened(text: str, limit: int = 200) -> str:
    """The text cut to `limit` characters, and encodable as UTF-8."""
    cut = text if len(text) <= limit else text[: limit - 1] + "…"
    return cut.encode("utf-8", "backslashreplace").decode()
