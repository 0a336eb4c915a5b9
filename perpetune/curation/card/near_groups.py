"""Groups of near duplicates by their size."""

from __future__ import annotations

from collections.abc import Mapping

from markupsafe import Markup

from perpetune.curation.card.svg import WIDTH, bar, picture, text

_CLASSES = ((2, 2), (3, 3), (4, 4), (5, 9), (10, 19), (20, 49), (50, None))
_NAME, _ROW, _NUMBERS = 70, 26, 160


def near_groups(sizes: Mapping[int, int]) -> Markup:
    """`sizes` maps the rows of a group to the number of such groups."""
    found = [(_name(low, high), *_counted(sizes, low, high)) for low, high in _CLASSES]
    found = [each for each in found if each[1]]
    most = max((groups for _, groups, _ in found), default=0) or 1
    space = WIDTH - _NAME - _NUMBERS
    parts: list[Markup] = []
    for place, (name, groups, rows) in enumerate(found):
        y = place * _ROW
        parts.append(text(0, y + 17, name))
        parts.append(bar(_NAME, y + 4, space * groups / most, _ROW - 8, "near", f"{_groups(groups)} of {name}"))
        parts.append(text(WIDTH, y + 17, f"{_groups(groups)}, {rows:,} rows", "end", "soft"))
    return picture(_ROW * len(found), "Groups of near duplicates by their size", parts)


def _groups(count: int) -> str:
    return f"{count:,} group{'' if count == 1 else 's'}"


def _name(low: int, high: int | None) -> str:
    return f"{low} rows" if low == high else f"{low} to {high}" if high else f"{low} or more"


def _counted(sizes: Mapping[int, int], low: int, high: int | None) -> tuple[int, int]:
    within = {size: count for size, count in sizes.items() if size >= low and (high is None or size <= high)}
    return sum(within.values()), sum(size * count for size, count in within.items())
