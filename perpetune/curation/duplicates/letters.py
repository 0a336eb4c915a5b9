"""The letters and digits of a text, and its words: what remains without punctuation."""

from __future__ import annotations

import re
import unicodedata

_JOINED = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff"  # scripts without spaces between words
_WORD = re.compile(rf"[{_JOINED}]|[^{_JOINED} ]+")
# Letters of other scripts that look like Latin ones (Unicode UTS #39), and a dotless i, whose capital is that of i.
_LOOK_ALIKE = dict(zip("аеорсухіјѕԁһοανρτυικ" + "ı", "aeopcyxijsdhoavptuik" + "i", strict=True))


def letters_of(text: str) -> str:
    """The letters and digits, without spaces."""
    return text.translate(_LETTERS)


def folded(text: str) -> str:
    """The letters and digits without accents, of letters that look the same one; without any, the emoji."""
    return text.translate(_FOLDED) or emoji_of(text)


def unmarked(text: str) -> str:
    """As `folded`, without vowel signs either, which some programs take for punctuation."""
    return text.translate(_UNMARKED)


def emoji_of(text: str) -> str:
    """The emoji and other pictures."""
    return text.translate(_EMOJI)


def words_of(text: str) -> tuple[str, ...]:
    """The words without their punctuation and accents; of scripts without spaces, the characters."""
    plain = text.translate(_FOLDED_WORDS)
    return tuple(plain.split() if plain.isascii() else _WORD.findall(plain))


def has_content(text: str) -> bool:
    """Whether the text has letters, digits or emoji."""
    first = text[:1]
    return (first.isascii() and first.isalnum()) or bool(letters_of(text) or emoji_of(text))


def has_words(text: str) -> bool:
    """Whether the text has letters or emoji."""
    return any(map(str.isalpha, text)) or bool(emoji_of(text))


class _Kept(dict[int, str | None]):
    """A table for `str.translate` that keeps characters of some categories (by their first letters), and learns each when it first occurs.

    `space` is put for whitespace.
    """

    def __init__(self, *kept: str, space: str | None = None, folds: bool = False) -> None:
        super().__init__(dict.fromkeys((0x034F, *range(0xFE00, 0xFE10))))  # joiners and variants of one character
        self._kept = kept
        self._space = space
        self._folds = folds

    def __missing__(self, code: int) -> str | None:
        char = chr(code)
        other = self._space if char.isspace() else None
        self[code] = self._of(char) if unicodedata.category(char).startswith(self._kept) else other
        return self[code]

    def _of(self, char: str) -> str | None:
        if not self._folds:
            return char
        bare = "".join(part for part in unicodedata.normalize("NFKD", char) if not "\u0300" <= part <= "\u036f")
        return _LOOK_ALIKE.get(bare, unicodedata.normalize("NFC", bare)) or None


_LETTERS = _Kept("L", "M", "N")
_FOLDED = _Kept("L", "M", "N", folds=True)
_UNMARKED = _Kept("L", "N", folds=True)
_FOLDED_WORDS = _Kept("L", "M", "N", space=" ", folds=True)
_EMOJI = _Kept("So")
