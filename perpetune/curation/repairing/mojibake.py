"""Mojibake: text that was decoded in another encoding than it was written in (ftfy)."""

from __future__ import annotations

import re

import ftfy

from perpetune.curation.repairing.fixpoint import until_stable

_ABOUT_ENCODINGS = re.compile(
    r"mojibake|\butf-?\s?(?:8|16|32)|unicode|\bencod|\bdecod|charset|latin-?1|iso-?8859|cp-?125\d|windows-?125\d|\bascii\b",
    re.IGNORECASE,
)


def without_mojibake(text: str) -> str:
    """The text as it was written, `cafÃ©` as `café`; text that is right comes back as it is.

    ftfy changes a text only if it is unlikely as it stands and likely in another encoding, whatever its language.
    """
    return text if text.isascii() else until_stable(ftfy.fix_encoding, text)


def is_about_encodings(text: str) -> bool:
    """Whether mojibake in the text may be what it is about, such as a question to a help desk."""
    return _ABOUT_ENCODINGS.search(text) is not None
