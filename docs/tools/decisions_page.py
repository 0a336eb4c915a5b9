"""The list of decisions, from their titles."""

from __future__ import annotations

import re

from markdown_text import DOCS, heading, table

PAGE = "decisions/index.md"
_NUMBER = re.compile(r"^0*(\d+): ")


def decisions_page() -> str:
    pages = sorted((DOCS / "decisions").glob("[0-9]*.md"))
    rows = [(str(int(path.name[:4])), f"[{_NUMBER.sub('', heading(path))}]({path.name})") for path in pages]
    return (
        "# Decisions\n\nOne page for each decision that somebody may question: what was decided, why, what was measured, "
        "and what else was considered.\n\n" + table(["", "Decision"], rows)
    )
