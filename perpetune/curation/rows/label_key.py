"""Keys by which variants of one label are found."""

from __future__ import annotations

import json
import re
import unicodedata
from functools import lru_cache

from perpetune.curation.text import normalised

_WHOLE_NUMBER = re.compile(r"([+-]?\d+)\.0+")
_SEPARATOR = re.compile(r"\s*[,;|]\s*")


@lru_cache(maxsize=2**14)  # a few labels, asked for in every row
def label_key(label: str) -> str:
    """The same for labels that differ in case, whitespace, Unicode form, invisible characters, or by their export.

    A table writes the label 1 as `1.0` if another row has none. A list of labels is a set: neither the order of its
    items nor that of an object's keys counts.
    """
    shown = "".join(c for c in unicodedata.normalize("NFKC", label) if unicodedata.category(c) != "Cf")
    text = normalised(shown)
    if text[:1] in ("[", "{"):
        try:
            return _sorted(json.loads(text))
        except (ValueError, RecursionError):
            return text
    parts = [_without_zeros(part) for part in _SEPARATOR.split(text)]
    return ", ".join(sorted(filter(None, parts))) or text


def _without_zeros(text: str) -> str:
    whole = _WHOLE_NUMBER.fullmatch(text)
    return whole[1] if whole else text


def _sorted(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(sorted(map(_sorted, value)))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(sorted(f'{key}: {_sorted(part)}' for key, part in value.items()))}}}"
    return _without_zeros(str(value))
