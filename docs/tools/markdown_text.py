"""Pieces of Markdown that several generated pages share."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

DOCS = Path(__file__).parents[1]
ROOT = DOCS.parent

_CODE_WITH_BAR = re.compile(r"`([^`]*\|[^`]*)`")
_DECISION = re.compile(r"\b(decisions?) ((?:\d{1,2}(?:, | and )?)+)")
_PAGE = re.compile(r"(?<![\w/(])docs/([\w/-]+\.md)")


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [list(header), ["---"] * len(header), *(list(row) for row in rows)]
    return "\n".join("| " + " | ".join(_cell(text) for text in line) + " |" for line in lines) + "\n"


def _cell(text: str) -> str:
    """The text without line breaks. Python-Markdown shows the backslash of an escaped bar in code, so that code is HTML."""
    as_html = _CODE_WITH_BAR.sub(lambda found: f"<code>{escape(found[1]).replace('|', '&#124;')}</code>", text)
    return " ".join(as_html.replace("|", "\\|").split())


def code(text: object) -> str:
    return f"`{text}`"


def linked(text: str, page: str) -> str:
    """The text with `decision 14` and `docs/guides/gpus.md` as links, for a page at this path below docs/."""
    up = "../" * page.count("/")

    def decisions(found: re.Match[str]) -> str:
        numbers = re.sub(r"\d+", lambda number: f"[{number[0]}]({up}{decision(int(number[0]))})", found[2])
        return f"{found[1]} {numbers}"

    def title(found: re.Match[str]) -> str:
        return f"[{heading(DOCS / found[1])}]({up}{found[1]})"

    return _PAGE.sub(title, _DECISION.sub(decisions, text))


def decision(number: int) -> str:
    """The page of a decision, below docs/."""
    (path,) = (DOCS / "decisions").glob(f"{number:04}-*.md")
    return str(path.relative_to(DOCS))


def heading(path: Path) -> str:
    """The title of a page."""
    return next(line for line in path.read_text(encoding="utf-8").splitlines() if line[:2] == "# ")[2:]
