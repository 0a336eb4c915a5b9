"""A text as patterns read it: full-width characters as plain ones, without invisible ones, with the offsets kept."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

_DASHES = re.compile("[\u2010-\u2015\u2212\u2043\ufe58\ufe63\uff0d]")


@dataclass(frozen=True)
class FoldedText:
    """`offsets[i]` is the position in the source that character `i` of `text` comes from; None: all are the same."""

    text: str
    offsets: Sequence[int] | None = None

    def source_span(self, start: int, end: int) -> tuple[int, int]:
        """The span of the source that `text[start:end]` comes from."""
        if self.offsets is None:
            return start, end
        return self.offsets[start], self.offsets[end - 1] + 1


def fold(text: str) -> FoldedText:
    """The text in NFKC (Unicode Standard Annex 15), character by character, with ASCII digits, dashes and spaces."""
    if text.isascii():
        return FoldedText(text)
    pieces = [_fold(character) for character in text]
    folded = "".join(pieces)
    if len(folded) == len(text) and all(map(len, pieces)):
        return FoldedText(folded)
    return FoldedText(folded, [position for position, piece in enumerate(pieces) for _ in piece])


@lru_cache(maxsize=4096)
def _fold(character: str) -> str:
    if character.isascii():
        return character
    category = unicodedata.category(character)
    if category == "Cf":  # zero-width characters, direction marks, soft hyphens
        return ""
    if category == "Nd":
        return str(unicodedata.decimal(character))
    if category in ("Zs", "Zl", "Zp"):
        return " "
    return _DASHES.sub("-", unicodedata.normalize("NFKC", character))
