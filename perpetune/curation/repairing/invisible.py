"""Characters that show nothing and mean nothing in their place."""

from __future__ import annotations

import re
import unicodedata

_NEVER_NEEDED = "\u00ad\u180e\u2060\ufeff"  # soft hyphen, Mongolian vowel separator, word joiner, byte order mark
_SPACE = "\u200b"  # divides words of scripts that write them without spaces
_DIRECTIONS = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_JOINERS = "\u200c\u200d"

_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u19e0-\u19ff\u1a20-\u1aaf\ua9e0-\ua9ff\uaa60-\uaa7f"
_ANY = re.compile(f"[{_NEVER_NEEDED}{_SPACE}{_DIRECTIONS}{_JOINERS}]")
_NEEDLESS = re.compile(
    f"[{_NEVER_NEEDED}]"
    f"|(?<![{_UNSPACED}]){_SPACE}(?![{_UNSPACED}])"
    # Joiners spell Persian and Indian words and compose emoji; between Latin letters or at an end they join nothing.
    f"|(?<![^\\x00-\u024f])[{_JOINERS}]+(?![^\\x00-\u024f])"
)
_DIRECTION = re.compile(f"[{_DIRECTIONS}]")


def without_invisible(text: str) -> str:
    """The text without zero-width spaces, soft hyphens, byte order marks, and joiners and marks of direction that have
    nothing to join or to turn.
    """
    if not _ANY.search(text):
        return text
    cleaned = _NEEDLESS.sub("", text)
    return cleaned if _is_right_to_left(cleaned) else _DIRECTION.sub("", cleaned)


def _is_right_to_left(text: str) -> bool:
    return any(unicodedata.bidirectional(character) in ("R", "AL", "AN") for character in text)
