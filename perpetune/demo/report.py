"""The demo's page: accuracy over time with and without the loop, and what the loop did."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from perpetune.demo.summary import Summary
from perpetune.evaluation.report.style import DARK, LIGHT, colour, house_style, svg
from perpetune.files import write_atomic
from perpetune.workspace import Workspace

ROLLING = 50
FEWEST = 10


def write_report(path: Path, workspace: Workspace, summary: Summary) -> Path:
    """Write the page, one file that needs nothing else, and return its path."""
    environment = Environment(
        loader=ChoiceLoader([PackageLoader("perpetune.demo", ""), PackageLoader("perpetune.evaluation.report", "")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    page = environment.get_template("report.html").render(
        summary=summary,
        chart=Markup(svg(chart(summary), "Accuracy over the stream, with and without the loop")),
        rolling=ROLLING,
        base=f"{workspace.params.base.model} {workspace.params.base.revision or ''}",
        light=LIGHT,
        dark=DARK,
    )
    return write_atomic(path, page)


def chart(summary: Summary) -> Figure:
    """Rolling accuracy of both, with the moments that matter."""
    moments = summary.moments
    with house_style():
        figure = Figure(figsize=(9, 4.2))
        axes = figure.subplots()
        axes.grid(axis="y")
        positions = list(range(1, len(moments) + 1))
        without = rolling([moment.without_loop for moment in moments], summary.turned_at)
        kept = [
            (position, moment)
            for position, moment in zip(positions, moments, strict=True)
            if moment.with_loop is not None
        ]
        axes.plot(
            positions, without, color=colour("base"), linewidth=1.8, linestyle=(0, (4, 2)), label="first champion alone"
        )
        axes.plot(
            [position for position, _ in kept],
            rolling([bool(moment.with_loop) for _, moment in kept], summary.turned_at),
            color=colour("challenger"),
            linewidth=2.4,
            label="with the loop",
        )
        for position, text, height in _marks(summary):
            axes.axvline(position, color=LIGHT["muted"], linewidth=0.9)
            axes.annotate(
                text,
                (position, height),
                xytext=(5, 0),
                textcoords="offset points",
                color=LIGHT["ink"],
                fontsize=9,
                va="bottom",
            )
        axes.set_ylim(0, 1.18)
        axes.set_xlim(1, len(moments))
        axes.set_yticks([0, 0.25, 0.5, 0.75, 1.0], ["0%", "25%", "50%", "75%", "100%"])
        axes.set_xlabel("requests")
        axes.legend(loc="lower left", frameon=False, ncols=2)
        return figure


def _marks(summary: Summary) -> list[tuple[int, str, float]]:
    found = [(summary.turned_at + 1, "the stream turns")]
    if summary.drift_at is not None and summary.drift_at != summary.decay_at:
        found.append((summary.drift_at, "drift seen"))
    if summary.decay_at is not None:
        both = summary.drift_at == summary.decay_at
        found.append((summary.decay_at, "drift and decay caught" if both else "decay caught"))
    if summary.swap_at is not None:
        found.append((summary.swap_at + 1, "swapped"))
    return [(position, text, 1.03 + 0.055 * (number % 2)) for number, (position, text) in enumerate(found)]


def rolling(right: Sequence[bool], restart: int) -> list[float]:
    """The accuracy of the last `ROLLING` answers, restarted when the stream changes; NaN if there are too few."""
    accuracies = []
    for position in range(len(right)):
        start = max(restart if position >= restart else 0, position + 1 - ROLLING)
        window = right[start : position + 1]
        accuracies.append(sum(window) / len(window) if len(window) >= FEWEST else math.nan)
    return accuracies
