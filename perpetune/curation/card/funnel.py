"""The funnel: the rows after each step, and how many it dropped."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from perpetune.curation.card.svg import WIDTH, bar, fitted, picture, text

_NAME, _ROW, _NUMBERS = 86, 30, 112


def funnel(steps: Sequence[tuple[str, int, int]]) -> Markup:
    """`steps` are name, rows in and rows kept, in their order."""
    most = max((rows for _, rows, _ in steps), default=0) or 1
    space = WIDTH - _NAME - _NUMBERS
    parts: list[Markup] = []
    for place, (name, rows, kept) in enumerate(steps):
        y = place * _ROW
        width, whole = space * kept / most, space * rows / most
        middle = _NAME + space / 2
        parts.append(text(0, y + 19, fitted(name, _NAME)))
        parts.append(bar(middle - whole / 2, y + 5, whole, _ROW - 9, "out", f"{name}: {rows:,} rows in"))
        parts.append(bar(middle - width / 2, y + 5, width, _ROW - 9, "train", f"{name}: {kept:,} rows kept"))
        parts.append(text(WIDTH, y + 19, f"{kept:,}" + (f" (−{rows - kept:,})" if rows > kept else ""), "end", "soft"))
    return picture(_ROW * len(steps), "The rows that are left after each step", parts)
