"""The label balance: the ratio of each label in each split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from perpetune.curation.card.pictures.svg import WIDTH, dot, fitted, line, picture, text, width_of

MOST = 15
"""Labels, the most frequent ones; with more, the table of labels has all."""
_LEAST_NAME, _MOST_NAME, _ROW, _END = 60, 210, 24, 14


def balance(labels: Sequence[str], splits: Mapping[str, Mapping[str, int]]) -> Markup:
    """A dot for each split, by label: dots that lie together are balanced splits. `labels` are in the order shown."""
    shown = labels[:MOST]
    totals = {name: sum(counts.values()) for name, counts in splits.items()}
    ratios = {
        name: {label: counts.get(label, 0) / totals[name] for label in shown}
        for name, counts in splits.items()
        if totals[name]
    }
    step = _step(max((ratio for each in ratios.values() for ratio in each.values()), default=0) or 1)
    most = 4 * step
    beginning = min(max(width_of(shown) + 12, _LEAST_NAME), _MOST_NAME)
    space = WIDTH - beginning - _END
    bottom = _ROW * len(shown)
    parts = [
        part
        for mark in (0, 2 * step, most)
        for part in (
            line(beginning + space * mark / most, 0, beginning + space * mark / most, bottom),
            text(beginning + space * mark / most, bottom + 16, f"{100 * mark:g}%", "middle", "soft"),
        )
    ]
    for place, label in enumerate(shown):
        y = place * _ROW + _ROW / 2
        parts.append(text(0, y + 4, fitted(label or "(empty)", beginning - 12)))
        # The training split last, so that it lies above the others.
        for name, found in reversed(ratios.items()):
            hint = f"{label}: {100 * found[label]:.1f}% of {name}"
            parts.append(dot(beginning + space * found[label] / most, y, 5, name, hint))
    return picture(bottom + 22, "The ratio of each label in each split", parts)


def _step(highest: float) -> float:
    """A quarter of an axis that ends at a round ratio, not below the highest."""
    return next((step for step in (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2) if 4 * step >= highest), 0.25)
