"""The histogram of lengths, on a logarithmic axis, stacked by split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup

from perpetune.curation.card.svg import WIDTH, bar, line, picture, text

_BINS, _HEIGHT = 24, 130


def histogram(lengths: Mapping[str, Sequence[int]], what: str) -> Markup:
    """`lengths` are in characters, by split; an empty text counts as one character."""
    values = np.array([max(each, 1) for of_split in lengths.values() for each in of_split])
    if not len(values):
        return Markup("")
    edges = _edges(int(values.min()), int(values.max()))
    counts = {name: np.histogram(np.maximum(of_split, 1), edges)[0] for name, of_split in lengths.items() if of_split}
    highest = int(np.sum(list(counts.values()), axis=0).max()) or 1
    width = WIDTH / (len(edges) - 1)
    parts = [line(0, _HEIGHT, WIDTH, _HEIGHT)]
    for place in range(len(edges) - 1):
        y = float(_HEIGHT)
        for name, found in counts.items():
            if found[place]:
                height = (_HEIGHT - 16) * int(found[place]) / highest
                y -= height
                hint = f"{name}: {int(found[place]):,} rows of {edges[place]:.0f} to {edges[place + 1]:.0f} characters"
                parts.append(bar(place * width + 0.5, y, width - 1, height, name, hint))
    parts += [text(*each) for each in _axis(edges)]
    parts.append(text(WIDTH, 11, f"{highest:,} rows at most", "end", "soft"))
    return picture(_HEIGHT + 22, f"Histogram of the lengths of {what}", parts)


def _edges(least: int, most: int) -> np.ndarray:
    """Edges of the bins, at whole characters."""
    edges = np.unique(np.floor(np.geomspace(least, most + 1, _BINS + 1)))
    return edges if len(edges) > 1 else np.array([least, least + 1.0])


def _axis(edges: np.ndarray) -> list[tuple[float, float, str, str, str]]:
    last = len(edges) - 1
    marks = sorted({0, last // 2, last})
    anchors = {0: "start", last: "end"}
    return [
        (WIDTH * mark / last, _HEIGHT + 16, f"{edges[mark] - (mark == last):,.0f}", anchors.get(mark, "middle"), "soft")
        for mark in marks
    ]
