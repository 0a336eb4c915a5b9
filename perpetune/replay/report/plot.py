"""A plot of a replay: each policy's score over time, with its refreshes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from perpetune.evaluation.report.style import LIGHT, house_style
from perpetune.replay.outcome import Outcome, Segment
from perpetune.replay.replay import Replay

_COLOURS = {
    "never": LIGHT["base"],
    "every week": LIGHT["linear"],
    "Evidently preset": LIGHT["few-shot"],
    "perpetune": LIGHT["champion"],
    "as recorded": LIGHT["ink"],
}
_HEIGHT = 1.45  # inches per policy


def scores_over_time(found: Replay, changes: Sequence[datetime]) -> Figure:
    """A panel for each policy: its score with interval, the score of "never" in grey, and its refreshes.

    A filled marker is a refresh that was promoted, a hollow one was not.
    """
    outcomes = found.outcomes
    with house_style():
        figure = Figure(figsize=(8.6, 1.2 + _HEIGHT * len(outcomes)))
        figure.suptitle(
            f"{found.metric.replace('_', ' ').capitalize()} over time by retraining policy: {found.history}",
            x=0.01,
            ha="left",
            fontsize=11,
            fontweight="bold",
        )
        panels: Any = figure.subplots(len(outcomes), 1, sharex=True, sharey=True, squeeze=False)
        low, high = _span(outcomes)
        for axes, outcome in zip(panels[:, 0], outcomes, strict=True):
            _panel(axes, outcome, outcomes[0], changes)
            axes.set_ylim(low, high)
        bottom = panels[-1, 0]
        locator = AutoDateLocator(minticks=4, maxticks=9)  # type: ignore[no-untyped-call]
        bottom.xaxis.set_major_locator(locator)
        bottom.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
        figure.supxlabel(
            "bands are intervals; markers are refreshes, filled if promoted; grey is the first model, never retrained",
            fontsize=8,
            color=LIGHT["muted"],
            x=0.01,
            ha="left",
        )
        return figure


def _span(outcomes: Sequence[Outcome]) -> tuple[float, float]:
    segments = [segment.score for outcome in outcomes for segment in outcome.segments]
    low, high = min(score.low for score in segments), max(score.high for score in segments)
    return max(-0.02, low - 0.12 * (high - low)), min(1.02, high + 0.05)


def _panel(axes: Axes, outcome: Outcome, never: Outcome, changes: Sequence[datetime]) -> None:
    shade = _COLOURS[outcome.policy]
    axes.grid(axis="y")
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    if outcome is not never:
        axes.plot(*_line(never.segments), color=LIGHT["majority"], linewidth=1.2, zorder=2)
    times, values = _line(outcome.segments)
    axes.fill_between(
        times,
        [segment.score.low for segment in outcome.segments],
        [segment.score.high for segment in outcome.segments],
        color=shade,
        alpha=0.16,
        linewidth=0,
    )
    axes.plot(times, values, color=shade, linewidth=2, zorder=3)
    for change in changes:
        axes.axvline(_date(change), color=LIGHT["muted"], linewidth=1, linestyle=(0, (4, 4)), zorder=1)
    for refresh in outcome.refreshes:
        axes.plot(
            [_date(refresh.time)],
            [0.06],
            "^",
            transform=axes.get_xaxis_transform(),
            color=shade,
            markerfacecolor=shade if refresh.promoted else LIGHT["paper"],
            markersize=7,
            clip_on=False,
            zorder=4,
        )
    axes.set_title(_heading(outcome), loc="left", fontsize=9, color=shade, fontweight="bold", pad=3)


def _heading(outcome: Outcome) -> str:
    score = f"{outcome.score.value:.1%} ({outcome.score.low:.1%} to {outcome.score.high:.1%})"
    if outcome.policy == "as recorded":
        return f"{outcome.policy}: {score}"
    times = "not retrained" if not outcome.refreshes else f"retrained {len(outcome.refreshes)}×"
    return f"{outcome.policy}: {score}, {times}, ${outcome.dollars:.2f} of training"


def _line(segments: Sequence[Segment]) -> tuple[list[float], list[float]]:
    middles = [_date(segment.start + (segment.end - segment.start) / 2) for segment in segments]
    return middles, [segment.score.value for segment in segments]


def _date(time: datetime) -> float:
    return float(date2num(time))  # type: ignore[no-untyped-call]
