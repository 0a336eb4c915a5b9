"""A version report as a self-contained HTML page."""

from __future__ import annotations

import re
from pathlib import Path

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from perpetune.curation.difference import Count
from perpetune.evaluation.report import plots, style
from perpetune.evaluation.systems import METRIC_TITLES, title
from perpetune.explain import wording
from perpetune.explain.gather import gather
from perpetune.explain.numbers import Measurement
from perpetune.explain.version_report import Scores, VerdictSummary, VersionReport
from perpetune.files import write_atomic
from perpetune.statistics.estimate import Estimate
from perpetune.tracking.runs import Run, log_file
from perpetune.workspace import Workspace

PAGE = "explain.html"


def log_page(workspace: Workspace, run: Run, version: str) -> None:
    """Log the page of a version as an artifact of its run. Raises PerpetuneError if the report cannot be read."""
    path = workspace.run_folder(run.id) / PAGE
    write_page(path, gather(workspace, version))
    log_file(run, path)


def write_page(path: Path, report: VersionReport) -> None:
    """Write the page atomically. All data is escaped."""
    environment = Environment(
        loader=ChoiceLoader([PackageLoader("perpetune.explain", ""), PackageLoader("perpetune.evaluation.report", "")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"system": title, "code": _with_code}
    page = environment.get_template("version_report.html").render(
        report=report,
        words=wording,
        curve=_curve(report),
        scores=[(scores, _scores(scores)) for scores in report.scores],
        verdicts=[(verdict, _forest(verdict)) for verdict in report.verdicts],
        count_tables=_count_tables(report),
        light=style.LIGHT,
        dark=style.DARK,
    )
    write_atomic(path, page)


def _with_code(text: str) -> Markup:
    """Escaped HTML with `backticks` as <code>."""
    # A plain string: in Markup the replacement would be escaped too.
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _curve(report: VersionReport) -> Markup | None:
    training = report.training
    if not training.train_loss:
        return None
    drawn = plots.loss_curves(training.train_loss, training.validation_loss)
    return Markup(style.svg(drawn, "The loss at each step of training"))


def _scores(scores: Scores) -> Markup:
    heading = f"{METRIC_TITLES[scores.metric]} with {scores.level:.0%} intervals"
    drawn = plots.comparison(scores.systems, heading, percent=scores.metric == "accuracy")
    return Markup(style.svg(drawn, f"The score of each system on the {scores.holdout} holdout"))


def _forest(verdict: VerdictSummary) -> Markup | None:
    """A forest plot of the verdict's differences in points; other numbers have other scales."""
    found = {each.name: _estimate(each) for each in verdict.numbers.measured if _is_difference(each)}
    if not found or verdict.decision.kind == "retraining":
        return None
    drawn = plots.forest(found, "Challenger minus the other system (rows)", "points")
    return Markup(style.svg(drawn, "Each difference with its interval"))


def _is_difference(found: Measurement) -> bool:
    return found.unit == "points" and found.low is not None and found.name not in ("labelled window", "reference")


def _estimate(found: Measurement) -> Estimate:
    assert found.low is not None and found.high is not None
    return Estimate(found.value, found.low, found.high, found.rows or 0)


def _count_tables(report: VersionReport) -> dict[str, dict[str, Count]]:
    """Row counts of the data difference by split, source and label, at most `MAX_ROWS` of each."""
    difference = report.data.difference
    if difference is None:
        return {}
    count_tables = {"split": difference.splits, "source": difference.sources, "label": difference.labels}
    return {name: dict(list(counts.items())[: wording.MAX_ROWS]) for name, counts in count_tables.items() if counts}
