"""The encoding of a text file: UTF-8, UTF-16 or UTF-32 by their marks, otherwise what charset-normalizer finds."""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from perpetune.errors import PerpetuneError

if TYPE_CHECKING:
    from charset_normalizer import CharsetMatch

UNDECODABLE = re.compile("[\udc80-\udcff]")
"""What a byte becomes that cannot be decoded."""

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# Those that spreadsheets and older systems write. Of equally likely ones the first is taken.
_CANDIDATES = [
    "cp1252",
    "cp1250",
    "cp1251",
    "cp1253",
    "cp1254",
    "cp1255",
    "cp1256",
    "iso8859_2",
    "koi8_r",
    "mac_roman",
    "cp850",
    "cp932",
    "euc_jp",
    "gb18030",
    "big5",
    "cp949",
]
_JAPANESE = ("cp932", "euc_jp")
_SAMPLE_LINES = 500
_UTF8_SEQUENCE = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
_HIGH_IN_WORD = re.compile(rb"[A-Za-z][\x80-\xff]|[\x80-\xff][A-Za-z\x80-\xff]")


@dataclass(frozen=True)
class TextEncoding:
    """The name of the codec, and what to tell the user if it is not UTF-8."""

    name: str
    note: str | None = None


def encoding_of(file: BinaryIO, wanted: str | None) -> TextEncoding:
    """The encoding that the user `wanted`, or else the one found. Raises PerpetuneError if it is unknown.

    Single bytes that are not UTF-8 do not make another encoding: their records are rejected.
    """
    if wanted:
        return TextEncoding(_known(wanted))
    head = file.read(64)
    file.seek(0)
    mark = next((name for bom, name in _MARKS if head.startswith(bom)), None)
    if mark:
        return TextEncoding(mark, None if mark == "utf-8-sig" else f"encoding: {mark.upper()}")
    wide = _wide(head)
    if wide:
        return TextEncoding(wide, f"encoding: {wide.upper()}")
    found = _legacy(file)
    file.seek(0)
    return found or TextEncoding("utf-8")


def text_lines(file: BinaryIO, encoding: TextEncoding, path: Path, newline: str) -> Iterator[str]:
    """The lines with their ends; bytes that cannot be decoded are UNDECODABLE. Raises PerpetuneError."""
    text = io.TextIOWrapper(file, encoding.name, "surrogateescape", newline=newline)
    try:
        yield from text
    except UnicodeError:
        raise PerpetuneError(f"the file is not valid {encoding.name.upper()}", where=str(path)) from None
    finally:
        # Else the file would be closed with the wrapper.
        if not file.closed:
            text.detach()


def _known(name: str) -> str:
    try:
        return codecs.lookup(name).name
    except LookupError:
        raise PerpetuneError(
            f"there is no encoding named {name!r}", where="--encoding", do="such as utf-8, cp1252, utf-16 or shift_jis"
        ) from None


def _wide(head: bytes) -> str | None:
    """UTF-16 without a mark has a NUL in every second byte of western text."""
    for name, nul in (("utf-16-le", 1), ("utf-16-be", 0)):
        if len(head) > 3 and not any(head[nul::2]) and all(head[1 - nul :: 2]):
            return name
    return None


def _legacy(lines: Iterable[bytes]) -> TextEncoding | None:
    """The encoding of a file with lines that are not UTF-8; None if it is damaged UTF-8 or nothing that is known.

    A character that is cut off at the end of the file, or text in UTF-8 elsewhere, shows that it is damaged.
    """
    right = 0
    wrong: list[bytes] = []
    for line in lines:
        if line.isascii():
            continue
        if _is_utf8(line):
            right += 1
        elif len(wrong) < _SAMPLE_LINES:
            wrong.append(line)
    sample = b"".join(wrong)
    if 10 * right >= len(wrong) or not _HIGH_IN_WORD.search(sample) or _damaged_utf8(sample):
        return None
    # Late: only such files need it.
    from charset_normalizer import from_bytes

    found = list(from_bytes(sample, cp_isolation=list(_CANDIDATES), threshold=0.3))
    if not found:
        return None
    name = _likeliest(found)
    shown = sample.decode(name, "replace")
    excerpt = next((line for line in shown.splitlines() if not line.isascii()), shown).strip()
    return TextEncoding(name, f"encoding: {name} ({excerpt:.60}); if that is wrong, give --encoding")


def _is_utf8(line: bytes) -> bool:
    """Whether the line is UTF-8, but perhaps for its end, if it ends in a character and not in a line break."""
    try:
        line.decode("utf-8")
    except UnicodeDecodeError as fault:
        return fault.reason == "unexpected end of data"
    return True


def _damaged_utf8(sample: bytes) -> bool:
    """Whether most high bytes are parts of UTF-8 characters."""
    high = sum(byte > 127 for byte in sample)
    return 2 * sum(len(part) for part in _UTF8_SEQUENCE.findall(sample)) > high


def _likeliest(found: list[CharsetMatch]) -> str:
    """The first candidate among those that are about as plausible as the best.

    Syllables are proof of Japanese: the other Asian encodings read its bytes as rare characters.
    """
    japanese = [match.encoding for match in found if match.encoding in _JAPANESE and _has_kana(str(match))]
    if japanese:
        return japanese[0]
    best = found[0]
    close = {
        match.encoding
        for match in found
        if match.chaos <= best.chaos + 0.01 and match.coherence >= best.coherence - 0.05
    }
    names = close | {same for match in found if match.encoding in close for same in match.could_be_from_charset}
    return next((name for name in _CANDIDATES if name in names), best.encoding)


def _has_kana(text: str) -> bool:
    high = [char for char in text if ord(char) > 127]
    return 5 * sum("\u3041" <= char <= "\u30ff" for char in high) > len(high)
