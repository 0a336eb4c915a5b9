"""Texts of a version report, for the terminal and the page."""

from __future__ import annotations

from datetime import datetime

from perpetune.curation.difference import Count
from perpetune.evaluation.systems import METRIC_TITLES
from perpetune.explain.numbers import Measurement
from perpetune.explain.version_report import Data, Scores, Trigger, VersionReport
from perpetune.statistics.estimate import Estimate

UNTRAINED = "This version was not trained."
MAX_ROWS = 12  # labels or sources in a table
TRIGGERS = {
    "manual": "Started manually",
    "schedule": "Started by the schedule",
    "decay": "Started because the champion has decayed",
}


def when(time: datetime | None) -> str:
    return f"{time:%Y-%m-%d %H:%M %Z}" if time else ""


def trigger(found: Trigger) -> str:
    trigger_text = TRIGGERS.get(found.kind, f"Trigger: {found.kind}")
    return (
        f"{trigger_text}, {when(found.time)}: {found.reason}"
        if found.reason
        else f"{trigger_text}, {when(found.time)}."
    )


def data(found: Data) -> str:
    rows = ", ".join(f"{count:,} {name}" for name, count in found.rows.items())
    text = f"DVC version {found.version}: {rows} rows." if rows else f"DVC version {found.version}."
    return f"{text} {found.note}".strip()


def difference(found: Data) -> str:
    """The difference to the previous version's data, in one sentence."""
    counts = found.difference
    assert counts is not None
    return (
        f"Against the data of version {found.previous}: {counts.added:,} rows added, {counts.removed:,} removed, "
        f"{counts.changed:,} changed, {counts.moved:,} moved to another split."
    )


def change(count: Count) -> str:
    return signed(count.after - count.before, ",d") if count.after != count.before else ""


def approval(report: VersionReport) -> str:
    found = report.approval
    if found is None:
        return "Not required: the policy decided automatically."
    by = f" by {found.by}" if found.by else ""
    return f"{found.state.capitalize()}{by}" + (f": {found.comment}" if found.comment else ".")


def scores_title(scores: Scores) -> str:
    rows = max((found.n for found in scores.systems.values()), default=0)
    return f"{METRIC_TITLES[scores.metric]} on the {scores.holdout} holdout, {rows:,} rows"


def score(found: Estimate, metric: str) -> tuple[str, str]:
    """The value and its interval."""
    if metric == "accuracy":
        return f"{found.value:.1%}", f"{found.low:.1%} to {found.high:.1%}"
    return f"{found.value:.3f}", f"{found.low:.3f} to {found.high:.3f}"


def number(found: Measurement) -> str:
    """The value with its unit."""
    if found.unit == "points":
        return f"{signed(found.value, '.1f')} points"
    return f"{found.value:,.4g} {found.unit}".strip()


def columns(found: Measurement) -> tuple[str, str, str, str]:
    """Value, interval, rows and limit."""
    form = ".1f" if found.unit == "points" else ".4g"
    interval = (
        ""
        if found.low is None or found.high is None
        else f"{signed(found.low, form, plus=False)} to {signed(found.high, form, plus=False)} ({found.level or 0:.0%})"
    )
    rows = "" if found.rows is None else f"{found.rows:,}"
    limit = "" if found.limit is None else f"at most {found.limit:.4g}{'' if found.within else ', exceeded'}"
    return number(found), interval, rows, limit


def signed(value: float, form: str, *, plus: bool = True) -> str:
    """A formatted number with a typographic minus sign."""
    return format(value, f"{'+' if plus else ''}{form}").replace("-", "\N{MINUS SIGN}")
