"""A plot of the history of a search."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from perpetune.evaluation.report.style import LIGHT, house_style
from perpetune.tuning.search import Trial


def history(trials: Sequence[Trial]) -> Figure:
    """The validation loss of each finished trial and the best so far; crosses are pruned or stopped trials."""
    finished = [(trial.number, trial.validation_loss) for trial in trials if trial.validation_loss is not None]
    numbers, losses = zip(*finished, strict=True)
    unfinished = [trial.number for trial in trials if trial.state != "finished"]
    with house_style():
        figure = Figure(figsize=(7.2, 3.6))
        figure.suptitle("Lowest validation loss of each trial", x=0.01, ha="left", fontsize=11, fontweight="bold")
        axes = figure.add_subplot()
        axes.grid(axis="y")
        axes.step(numbers, list(accumulate(losses, min)), where="post", color=LIGHT["ink"], label="best so far")
        axes.plot(numbers, losses, "o", color=LIGHT["challenger"], markersize=7, label="finished")
        if unfinished:
            transform = axes.get_xaxis_transform()
            above = [1.03] * len(unfinished)
            axes.plot(
                unfinished,
                above,
                "x",
                transform=transform,
                clip_on=False,
                color=LIGHT["muted"],
                label="pruned or stopped",
            )
        if trials[0].validation_loss is not None:
            axes.axhline(
                trials[0].validation_loss, color=LIGHT["muted"], linestyle=(0, (4, 4)), label="current settings"
            )
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.set(xlabel="trial", xlim=(0.5, len(trials) + 0.5))
        figure.legend(loc="outside right upper", frameon=False)
        return figure
