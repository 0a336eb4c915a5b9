"""The evaluation report, a self-contained HTML page."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from perpetune.evaluation.costs import RefreshEconomics, sentences
from perpetune.evaluation.economics.equal_quality import OWN
from perpetune.evaluation.economics.wording import dollars, requests_text
from perpetune.evaluation.evaluate import Evaluation
from perpetune.evaluation.report import plots, style
from perpetune.evaluation.report.mistakes import Mistake, worst_mistakes
from perpetune.evaluation.report.summary import p_text
from perpetune.evaluation.scores import label_metrics
from perpetune.evaluation.systems import METRIC_TITLES, title
from perpetune.files import write_atomic

WORST_MISTAKES = 10
FREQUENT_CONFUSIONS = 12
OPEN_LABELS = 12  # a longer label table is collapsed
MOST_CHARS = 600  # of a text in the list of mistakes


@dataclass(frozen=True)
class _Section:
    """The template's data of one holdout."""

    name: str
    evaluation: Evaluation
    comparison: Markup
    differences: Markup | None
    confusion: Markup | None
    reliability: Markup | None
    mistakes: list[Mistake]


def write_report(
    path: Path,
    evaluations: Mapping[str, Evaluation],
    *,
    task: str,
    version: str,
    facts: Mapping[str, str] | None = None,
    worth: RefreshEconomics | None = None,
) -> None:
    """Write the report of the evaluations (by holdout), atomically.

    `version` is the challenger's name in the title, such as "version 4". `facts` are listed under the title, such as
    {"data version": "…", "base": "…"}; URLs become links. `worth` has the costs and savings of the refresh. All data is
    escaped.
    """
    environment = Environment(
        loader=PackageLoader("perpetune.evaluation.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "dollars": dollars,
        "p_text": p_text,
        "requests": requests_text,
        "system": title,
        "shorten": _shorten,
        "unbroken": _unbroken,
    }
    page = environment.get_template("report.html").render(
        task=task,
        version=version,
        facts=facts or {},
        worth=worth,
        worth_sentences=sentences(worth) if worth else [],
        own_systems=OWN,
        sections=[_section(name, evaluation) for name, evaluation in evaluations.items()],
        metric_titles=METRIC_TITLES,
        light=style.LIGHT,
        dark=style.DARK,
        open_labels=OPEN_LABELS,
        most_annotated=plots.MAX_ANNOTATED,
        frequent_confusions=FREQUENT_CONFUSIONS,
    )
    write_atomic(path, page)


def figures(evaluation: Evaluation) -> dict[str, Figure]:
    """The figures of an evaluation by name: comparison and, if available, differences, confusion, reliability."""
    percent = evaluation.kind == "classification"
    subject = evaluation.subject
    heading = f"{METRIC_TITLES[evaluation.main_metric]} with {evaluation.params.confidence:.0%} intervals"
    main = {system: estimates[evaluation.main_metric] for system, estimates in evaluation.metrics.items()}
    drawn = {"comparison": plots.comparison(main, heading, percent=percent)}
    if evaluation.comparisons:
        drawn["differences"] = plots.differences(
            evaluation.comparisons, subject, METRIC_TITLES[evaluation.main_metric], percent=percent
        )
    if percent:
        matrix = label_metrics.confusion(evaluation.credited_labels(subject), evaluation.scored[subject].texts)
        drawn["confusion"] = plots.confusion(matrix, subject)
    if subject in evaluation.calibrations:
        drawn["reliability"] = plots.reliability(evaluation.calibrations[subject], subject)
    return drawn


def _section(name: str, evaluation: Evaluation) -> _Section:
    drawn = figures(evaluation)

    def picture(which: str, description: str) -> Markup | None:
        return Markup(style.svg(drawn[which], description)) if which in drawn else None

    return _Section(
        name=name,
        evaluation=evaluation,
        comparison=Markup(style.svg(drawn["comparison"], "The score of each system with its interval")),
        differences=picture("differences", "The difference to each other system with its interval"),
        confusion=picture("confusion", "Confusion matrix: expected labels against answers"),
        reliability=picture("reliability", "Accuracy against confidence"),
        mistakes=worst_mistakes(evaluation, evaluation.subject, WORST_MISTAKES),
    )


def _shorten(text: str) -> str:
    return text if len(text) <= MOST_CHARS else text[:MOST_CHARS] + " …"


def _unbroken(sentence: str) -> str:
    """Keep a p-value on one line."""
    return re.sub(r"p ([<=]) ", "p\N{NO-BREAK SPACE}\\1\N{NO-BREAK SPACE}", sentence)
