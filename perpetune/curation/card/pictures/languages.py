"""Rows by language: those kept, and those dropped behind them."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from perpetune.curation.card.pictures.svg import WIDTH, bar, fitted, picture, text

MOST = 12
"""Languages, the most frequent ones; the table has all."""
_NAME, _ROW, _NUMBERS = 86, 26, 112


def languages(found: Sequence[tuple[str, int, int]]) -> Markup:
    """`found` are language, rows and rows kept, the most frequent first. Lengths are square roots: few rows show too."""
    shown = found[:MOST]
    most = max((rows for _, rows, _ in shown), default=0) or 1
    space = WIDTH - _NAME - _NUMBERS
    parts: list[Markup] = []
    for place, (code, rows, kept) in enumerate(shown):
        y = place * _ROW
        whole = space * float(rows / most) ** 0.5
        width = whole * kept / rows if rows else 0
        dropped = f" (−{rows - kept:,})" if rows > kept else ""
        parts.append(text(0, y + 17, fitted(code, _NAME)))
        parts.append(bar(_NAME, y + 4, whole, _ROW - 8, "out", f"{code}: {rows:,} rows"))
        parts.append(bar(_NAME, y + 4, width, _ROW - 8, "train", f"{code}: {kept:,} rows kept"))
        parts.append(text(WIDTH, y + 17, f"{kept:,}{dropped}", "end", "soft"))
    return picture(_ROW * len(shown), "Rows by language, kept and dropped", parts)
