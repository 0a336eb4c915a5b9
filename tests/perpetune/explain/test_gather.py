from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from perpetune.errors import PerpetuneError
from perpetune.explain.gather import gather
from perpetune.explain.page import log_page, write_page
from perpetune.explain.terminal import as_dict, show_report
from perpetune.explain.version_report import Training, VersionReport
from perpetune.tracking import registry
from perpetune.tracking.runs import artifact_names, find_run
from perpetune.workspace import Workspace

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def report(twice: Workspace) -> VersionReport:
    return gather(twice, "2")


def shown(report: VersionReport) -> str:
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    show_report(report, console)
    return console.export_text()


def test_a_report_has_the_origin_of_a_version(report: VersionReport) -> None:
    assert (report.task, report.version) == ("colours", "2")
    assert (report.trigger.kind, report.trigger.reason) == ("decay", "the champion scores 20 points less")
    assert report.data.previous == "1"
    apart = report.data.difference
    assert apart is not None
    assert apart.added > 0 and apart.labels["red"].after < apart.labels["blue"].after
    assert sum(count.after for count in apart.splits.values()) == sum(report.data.rows.values())
    assert len(report.training.train_loss) > 1


def test_every_score_has_its_interval_and_rows(report: VersionReport) -> None:
    (scores,) = [each for each in report.scores if each.holdout == "frozen"]
    assert {"base", "champion", "challenger"} <= set(scores.systems)
    for found in scores.systems.values():
        assert found.low <= found.value <= found.high
        assert found.n == report.data.rows["frozen"]
    frozen = report.verdicts[0].numbers.measured[0]
    assert (frozen.name, frozen.unit, frozen.rows) == ("frozen holdout", "points", report.data.rows["frozen"])


def test_the_first_version_has_nothing_before_it(twice: Workspace) -> None:
    report = gather(twice, "1")
    assert report.aliases == ("champion",)
    assert report.data.difference is None and "no previous data" in report.data.note
    with pytest.raises(PerpetuneError, match="no version 9"):
        gather(twice, "9")


def test_a_version_without_training_says_so(report: VersionReport, tmp_path: Path) -> None:
    untrained = replace(report, training=Training({}, {}, {}))
    write_page(tmp_path / "page.html", untrained)
    for text in (shown(untrained), (tmp_path / "page.html").read_text()):
        assert "This version was not trained." in text
    assert "This version was not trained." not in shown(report)


def test_missing_data_is_reported(twice: Workspace, tmp_path: Path) -> None:
    elsewhere = Workspace(tmp_path, twice.params, twice.settings)
    report = gather(elsewhere, "2")
    assert report.data.difference is None
    assert "is not available" in report.data.note
    assert "is not available" in shown(report)


def test_terminal_json_and_page_tell_the_same(report: VersionReport, tmp_path: Path) -> None:
    write_page(tmp_path / "2.html", report)
    page, text, plain = (tmp_path / "2.html").read_text(), shown(report), json.dumps(as_dict(report), default=str)
    for said in ("the champion scores 20 points less", report.data.version, "perpetune reproduce 2"):
        assert said in page and said in text and said in plain
    assert report.outcome == as_dict(report)["outcome"]
    assert "<code>perpetune ingest FILE</code>" in page and "&lt;code&gt;" not in page
    assert "<svg" in page and "src=" not in page and "<link" not in page


def test_the_page_lies_with_the_run(twice: Workspace, report: VersionReport) -> None:
    run = find_run(report.repeat.ids["MLflow run"])
    log_page(twice, run, "2")
    assert "explain.html" in artifact_names(run.id, "")


def test_a_version_goes_by_its_alias_too(twice: Workspace) -> None:
    champion = registry.find(twice.params.task.name, "champion")
    assert champion is not None and gather(twice, "champion").version == champion.version
