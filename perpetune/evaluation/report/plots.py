"""The figures of an evaluation, in matplotlib."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from perpetune.evaluation.report.style import LIGHT, colour, house_style
from perpetune.evaluation.scores.label_metrics import Confusion
from perpetune.evaluation.systems import title
from perpetune.statistics.calibration import Calibration
from perpetune.statistics.estimate import Estimate, Floats
from perpetune.statistics.paired import PairedComparison

MAX_ANNOTATED = 12  # labels of a confusion matrix with numbers in its cells
MAX_NAMED = 100  # labels of a confusion matrix with names on its axes
WIDTH = 5.4  # inches: readable on a phone, two side by side on a page


def comparison(estimates: Mapping[str, Estimate], heading: str, *, percent: bool) -> Figure:
    """A dot with its interval for each system, the first at the bottom."""
    with house_style():
        figure, axes = _dots(estimates, heading)
        most = max(estimate.n for estimate in estimates.values())
        axes.set_yticks(
            range(len(estimates)),
            [title(name) + (f" ({one.n:,})" if one.n < most else "") for name, one in estimates.items()],
        )
        for row, (system, estimate) in enumerate(estimates.items()):
            text = f"{estimate.value:.1%}" if percent else f"{estimate.value:.3f}"
            _dot(axes, row, estimate.value, estimate.low, estimate.high, text, colour(system))
        low = min(estimate.low for estimate in estimates.values())
        high = max(estimate.high for estimate in estimates.values())
        pad = max(0.015, 0.06 * (high - low))
        axes.set_xlim(max(-0.02, low - pad), min(1.02, high + pad))
        if percent:
            axes.xaxis.set_major_formatter(PercentFormatter(1))
        return figure


def differences(comparisons: Mapping[str, PairedComparison], subject: str, measure: str, *, percent: bool) -> Figure:
    """The subject's difference to each other system on the same rows, with intervals."""
    scale = 100 if percent else 1
    with house_style():
        figure, axes = _dots(comparisons, f"{title(subject)} minus each other system, on the same rows")
        for row, (rival, paired) in enumerate(comparisons.items()):
            text = f"{scale * paired.difference:+.1f}" if percent else f"{paired.difference:+.3f}"
            limits = scale * paired.low, scale * paired.high
            _dot(axes, row, scale * paired.difference, *limits, text.replace("-", "\N{MINUS SIGN}"), colour(rival))
        axes.axvline(0, color=LIGHT["ink"], linewidth=1.2, zorder=1)
        low = scale * min(0.0, *(paired.low for paired in comparisons.values()))
        high = scale * max(0.0, *(paired.high for paired in comparisons.values()))
        pad = max(0.01 * scale, 0.05 * (high - low))
        axes.set_xlim(low - pad, high + pad)
        axes.set_xlabel("points" if percent else measure, loc="right")
        return figure


def forest(estimates: Mapping[str, Estimate], heading: str, unit: str) -> Figure:
    """Differences with intervals, the first at the top; significant ones are coloured."""
    names = list(estimates)[::-1]
    with house_style():
        figure, axes = _dots(names, heading)
        axes.set_yticks(range(len(names)), [f"{_short(name, 40)} ({estimates[name].n:,})" for name in names])
        for row, name in enumerate(names):
            found = estimates[name]
            shade = LIGHT["challenger"] if found.low > 0 else LIGHT["wrong"] if found.high < 0 else LIGHT["muted"]
            text = f"{found.value:+.1f}".replace("-", "\N{MINUS SIGN}")
            _dot(axes, row, found.value, found.low, found.high, text, shade)
        axes.axvline(0, color=LIGHT["ink"], linewidth=1.2, zorder=1)
        axes.set_xlabel(unit, loc="right")
        return figure


def loss_curves(train: Mapping[int, float], validation: Mapping[int, float]) -> Figure:
    """The training and validation loss by step."""
    with house_style():
        figure = Figure(figsize=(WIDTH, 2.6))
        _heading(figure, "Training and validation loss")
        axes = figure.add_subplot()
        axes.grid(axis="y")
        axes.plot(list(train), list(train.values()), color=LIGHT["base"], linewidth=1.4, label="training")
        if validation:
            axes.plot(list(validation), list(validation.values()), "o-", color=LIGHT["challenger"], label="validation")
        axes.set_ylim(bottom=0)
        axes.set_xlabel("step", loc="right")
        axes.legend(frameon=False)
        return figure


def _dots(systems: Collection[str], heading: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, 1.0 + 0.42 * len(systems)))
    _heading(figure, heading)
    axes = figure.add_subplot()
    axes.grid(axis="x")
    axes.spines["left"].set_visible(False)
    axes.set_yticks(range(len(systems)), [title(system) for system in systems], color=LIGHT["ink"])
    axes.set_ylim(-0.6, len(systems) - 0.4)
    return figure, axes


def _dot(axes: Axes, row: int, value: float, low: float, high: float, text: str, shade: str) -> None:
    axes.plot([low, high], [row, row], color=shade, linewidth=5, alpha=0.3, solid_capstyle="round", zorder=2)
    axes.plot([value], [row], "o", color=shade, markersize=8, zorder=3, clip_on=False)
    beside = ("axes fraction", "data")
    axes.annotate(text, (1.02, row), xycoords=beside, va="center", color=shade, fontweight="bold")


def _heading(figure: Figure, text: str) -> None:
    figure.suptitle(text, x=0.01, ha="left", fontsize=11, fontweight="bold")


def reliability(found: Calibration, system: str) -> Figure:
    """Reliability diagram: accuracy against confidence, a dot with its interval per bin."""
    with house_style():
        figure = Figure(figsize=(4.6, 4.6))
        _heading(figure, f"{title(system)}: calibration")
        axes = figure.add_subplot()
        axes.grid()
        axes.plot([0, 1], [0, 1], color=LIGHT["muted"], linewidth=1, linestyle=(0, (4, 4)))
        for bin in found.bins:
            axes.plot(
                [bin.confidence] * 2,
                [bin.accuracy.low, bin.accuracy.high],
                color=colour(system),
                linewidth=4,
                alpha=0.28,
                solid_capstyle="round",
            )
        axes.plot(
            [bin.confidence for bin in found.bins],
            [bin.accuracy.value for bin in found.bins],
            "o",
            color=colour(system),
            markersize=7,
        )
        axes.annotate(
            f"calibration error {found.error:.3f}\nBrier score {found.brier.value:.3f}",
            (0.04, 0.96),
            xycoords="axes fraction",
            va="top",
            color=LIGHT["muted"],
        )
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal", xlabel="confidence", ylabel="accuracy")
        return figure


def confusion(matrix: Confusion, system: str) -> Figure:
    """Confusion matrix, shaded by the ratio of the expected label's rows.

    Right and wrong answers have different colours. Few labels have numbers; names are shown while they are readable.
    """
    count = len(matrix.labels)
    named, annotated = count <= MAX_NAMED, count <= MAX_ANNOTATED
    names = [_short(label) for label in matrix.labels]
    longest = max(map(len, names))
    margin = 0.075 * longest if annotated else 1.6
    side = min(14.0, 1.2 + margin + count * (0.62 if annotated else 0.125 if named else 0.05))
    with house_style():
        figure = Figure(figsize=(max(side, 4.0), side))
        _heading(figure, f"{title(system)}: expected against answered")
        axes = figure.add_subplot()
        axes.imshow(_shades(matrix), interpolation="nearest")
        if named:
            size = 10 if annotated else 6
            turn = 0 if annotated and longest <= 8 else 90
            axes.set_xticks(range(count), names, fontsize=size, rotation=turn, color=LIGHT["ink"])
            axes.set_yticks(range(count), names, fontsize=size, color=LIGHT["ink"])
        else:
            axes.set(xticks=[], yticks=[])
        axes.set_xticks(np.arange(1, count) - 0.5, minor=True)
        axes.set_yticks(np.arange(1, count) - 0.5, minor=True)
        axes.grid(which="minor", linewidth=1.5 if annotated else 0.4)
        axes.tick_params(which="minor", length=0)
        axes.set(xlabel="answered", ylabel="expected")
        axes.spines[:].set_visible(False)
        if annotated:
            _annotate(axes, matrix)
        return figure


def _row_ratios(matrix: Confusion) -> Floats:
    """Each cell divided by the sum of its row, (labels, labels)."""
    return np.asarray(matrix.counts / np.maximum(matrix.counts.sum(axis=1, keepdims=True), 1), dtype=np.float64)


def _shades(matrix: Confusion) -> Floats:
    """The RGBA colour of each cell, (labels, labels, 4)."""
    count = len(matrix.labels)
    shades = np.tile(to_rgba(LIGHT["wrong"]), (count, count, 1))
    shades[np.arange(count), np.arange(count)] = to_rgba(LIGHT["right"])
    shades[..., 3] = 0.9 * np.sqrt(_row_ratios(matrix))
    return shades


def _annotate(axes: Axes, matrix: Confusion) -> None:
    ratios = _row_ratios(matrix)
    for row, column in np.argwhere(matrix.counts > 0):
        axes.text(
            column,
            row,
            f"{matrix.counts[row, column]:,}",
            ha="center",
            va="center",
            color="white" if ratios[row, column] > 0.3 else LIGHT["ink"],
        )


def _short(label: str, most: int = 28) -> str:
    label = label or "(empty)"
    return label if len(label) <= most else label[: most - 1] + "…"
