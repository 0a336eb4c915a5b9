"""HTML that was left in a text when it was taken from a page."""

from __future__ import annotations

import html
import re

from perpetune.curation.repairing.code import is_code
from perpetune.curation.repairing.fixpoint import until_stable

_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_NAMES = "a|b|i|u|em|strong|span|font|small|big|sup|sub|p|div|br|hr|ul|ol|li|table|tbody|thead|tr|td|th|img|center|h[1-6]|wbr"
_TAG = re.compile(
    rf"</?(?:{_NAMES})(?:\s+[\w-]+(?:\s*=\s*(?:\"[^\"<>]*\"|'[^'<>]*'|[^\s<>\"']+))?)*\s*/?>", re.IGNORECASE
)
_BREAKS = re.compile(r"</?(?:br|p|div|hr|li|tr|table|h[1-6])\b", re.IGNORECASE)
_ANGLES = ("<", ">")


def without_markup(text: str) -> str:
    """The text with entities decoded and left-over tags removed, those of blocks as a line break; code stays.

    An escaped tag is a text about tags, and stays escaped.
    """
    if ("&" not in text and "<" not in text) or is_code(
        until_stable(html.unescape, text)
    ):  # an entity ends like a statement
        return text
    return until_stable(_decoded, until_stable(_untagged, text))


def _untagged(text: str) -> str:
    return _TAG.sub(lambda tag: "\n" if _BREAKS.match(tag[0]) else "", text)


def _decoded(text: str) -> str:
    decoded = _ENTITY.sub(lambda entity: html.unescape(entity[0]), text)
    if not _TAG.search(decoded):
        return decoded
    return _ENTITY.sub(_but_angles, text)


def _but_angles(entity: re.Match[str]) -> str:
    decoded = html.unescape(entity[0])
    return entity[0] if decoded in _ANGLES else decoded
