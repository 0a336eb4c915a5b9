"""Whether a text is code, a page or data, in which marks and repeated lines have a meaning."""

from __future__ import annotations

import json
import re

_FENCED = re.compile(r"^\s*(?:```|~~~)", re.MULTILINE)
_DOCUMENT = re.compile(r"<!doctype|<html\b|<\?xml|<svg\b|</(?:script|style|body|head)>|xmlns", re.IGNORECASE)
_LINE_OF_CODE = re.compile(
    r"[;{}]\s*(?://.*|#.*)?$|^\s*(?:def|class|import|from\s+\S+\s+import|return|if|elif|else|for|while|try|except|with|func|fn|"
    r"let|const|var|public|private|static|void|int|#include|package|using|namespace|select|insert|update|create|drop|"
    r"echo|sudo|git|docker|pip|npm|cd)\b.*[:;({=\[]|^\s*[\w.]+\s*(?:=|:=|\+=)\s*\S|^\s*(?:\$|>>>|//|/\*|\*/|#!)\s*|^\s*@\w+\b"
    r"|\w\(.*\)\s*[;:{]?\s*$|^\s*(?:git|docker|pip|npm|kubectl|sudo|curl)\s+[\w-]+",
    re.IGNORECASE,
)
_CODE_LINES = 0.4  # of all lines


def is_code(text: str) -> bool:
    """Whether the text is a program, a shell command, JSON or a page, or quotes one in fences."""
    if _FENCED.search(text) or _DOCUMENT.search(text) or _is_json(text):
        return True
    lines = [line for line in text.splitlines() if line.strip()]
    return bool(lines) and sum(map(bool, map(_LINE_OF_CODE.search, lines))) >= _CODE_LINES * len(lines)


def _is_json(text: str) -> bool:
    if text.strip()[:1] not in ("{", "["):
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
