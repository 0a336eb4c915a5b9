"""How texts are tidied, compared, shortened and fingerprinted."""

from __future__ import annotations

import hashlib
import json
import unicodedata

_KEPT_CONTROLS = {"\n", "\t"}
_BYTE_ORDER_MARK = "\ufeff"


def tidy(text: str) -> str:
    """The text in Unicode NFC, with Unix line ends, no control characters and no space around it."""
    unix = text.replace("\r\n", "\n").replace("\r", "\n").replace(_BYTE_ORDER_MARK, "")
    visible = "".join(c for c in unix if c in _KEPT_CONTROLS or unicodedata.category(c) != "Cc")
    return unicodedata.normalize("NFC", visible).strip()


def normalised(text: str) -> str:
    """What two texts share that differ only in case, white space and Unicode form."""
    return " ".join(unicodedata.normalize("NFC", text.casefold()).split())


def fingerprint(*parts: object) -> str:
    """16 hexadecimal digits of SHA-256 over the parts, which must be JSON values."""
    return hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode()).hexdigest()[:16]


def shortened(text: str, limit: int = 200) -> str:
    """At most `limit` characters of the text, safe to write as UTF-8."""
    cut = text if len(text) <= limit else text[: limit - 1] + "…"
    return cut.encode("utf-8", "backslashreplace").decode()
