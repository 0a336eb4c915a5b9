"""A story as one self-contained page."""

from __future__ import annotations

from pathlib import Path

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

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
    """Put the page of a version among the files of its run. Raises PerpetuneError where it cannot be gathered."""
    path = workspace.run_folder(run.id) / PAGE
    write_page(path, gather(workspace, version))
    log_file(run, path)


def write_page(path: Path, story: VersionReport) -> None:
    """Write the page, whole or not at all. Everything that comes from data is escaped."""
    environment = Environment(
        loader=ChoiceLoader([PackageLoader("perpetune.explain", ""), PackageLoader("perpetune.evaluation.report", "")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"system": title}
    page = environment.get_template("version_report.html").render(
        story=story,
        words=wording,
        curve=_curve(story),
        scores=[(scores, _scores(scores)) for scores in story.scores],
        verdicts=[(told, _forest(told)) for told in story.verdicts],
        kinds=_kinds(story),
        light=style.LIGHT,
        dark=style.DARK,
    )
    write_atomic(path, page)


def _curve(story: VersionReport) -> Markup | None:
    training = story.training
    if not training.train_loss:
        return None
    drawn = plots.loss_curves(training.train_loss, training.validation_loss)
    return Markup(style.svg(drawn, "The loss at each step of training"))


def _scores(scores: Scores) -> Markup:
    heading = f"{METRIC_TITLES[scores.metric]} with {scores.level:.0%} intervals"
    drawn = plots.comparison(scores.systems, heading, percent=scores.metric == "accuracy")
    return Markup(style.svg(drawn, f"The score of each system on the {scores.holdout} holdout"))


def _forest(told: VerdictSummary) -> Markup | None:
    """The differences; scores are no differences, and what has a unit of its own is on another scale."""
    found = {each.name: _estimate(each) for each in told.numbers.measured if _is_difference(each)}
    if not found or told.decision.kind == "retraining":
        return None
    drawn = plots.forest(found, "Challenger minus the other (rows)", "points")
    return Markup(style.svg(drawn, "Each difference with its interval"))


def _is_difference(found: Measurement) -> bool:
    return found.unit == "points" and found.low is not None and found.name not in ("labelled window", "reference")


def _estimate(found: Measurement) -> Estimate:
    assert found.low is not None and found.high is not None
    return Estimate(found.value, found.low, found.high, found.rows or 0)


def _kinds(story: VersionReport) -> dict[str, dict[str, Count]]:
    """The counts of the difference, by what they count; the commonest only where there are many."""
    apart = story.data.difference
    if apart is None:
        return {}
    kinds = {"split": apart.splits, "source": apart.sources, "label": apart.labels}
    return {name: dict(list(counts.items())[: wording.MOST_KINDS]) for name, counts in kinds.items() if counts}
