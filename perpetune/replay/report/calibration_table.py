"""A calibration as a table and as lines for params.yaml."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from perpetune.params.edit import number_as_yaml
from perpetune.replay.calibrate import Calibration
from perpetune.replay.resample import Delay


def show_calibration(found: Calibration, answered_by: str, console: Console) -> None:
    def say(line: str, style: str | None = None) -> None:
        console.print(line, markup=False, soft_wrap=True, style=style)

    score, rate = found.score, found.false_alarms
    say(
        f"{found.labels:,} labels of a stable period, {found.labels_per_day:.0f} a day; score {100 * score.value:.1f} "
        f"({100 * score.low:.1f} to {100 * score.high:.1f}), compared with {found.holdout} held-out rows"
    )
    say(f"answered by {answered_by}")
    say(
        f"false alarms a year: {rate.value:.2f} ({rate.low:.2f} to {rate.high:.2f}) in {rate.histories} resampled "
        f"histories of {rate.labels:,} labels"
    )
    table = Table("drop", "labels until found (median)", "days", f"found within {found.delays[0].within:,} labels")
    for delay in found.delays:
        table.add_row(f"{100 * delay.drop:g} points", *_cells(delay, found.labels_per_day))
    console.print(table)
    for warning in found.warnings:
        say(f"warning: {warning}", "yellow")
    say("watch:")
    for field, value in found.settings.items():
        say(f"  {field.removeprefix('watch.')}: {number_as_yaml(value)}")


def _cells(delay: Delay, per_day: float) -> tuple[str, str, str]:
    ratio = f"{delay.found.value:.0%} ({delay.found.low:.0%} to {delay.found.high:.0%}, n {delay.found.n})"
    if delay.labels is None:
        return "not in half of them", "", ratio
    labels = delay.labels
    spans = [
        f"{value / per:,.{digits}f} ({low / per:,.{digits}f} to {high / per:,.{digits}f})"
        for value, low, high, per, digits in (
            (labels.value, labels.low, labels.high, 1.0, 0),
            (labels.value, labels.low, labels.high, per_day, 1),
        )
    ]
    return spans[0], spans[1], ratio
