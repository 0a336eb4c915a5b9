from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from perpetune.demo.record import CheckSummary
from perpetune.demo.report import rolling, write_report
from perpetune.demo.saved import read_saved, save_summary
from perpetune.demo.summary import Cost, Link, Moment, Summary
from perpetune.errors import PerpetuneError
from perpetune.runtime.prefect_api import FlowRun
from perpetune.workspace import Workspace, open_workspace

ROOT = Path(__file__).parents[3]
RUN = FlowRun("1", "watch (manual)", "COMPLETED", "", "http://127.0.0.1:4200/runs/flow-run/1")


@pytest.fixture
def workspace() -> Workspace:
    return open_workspace(ROOT)


@pytest.fixture
def summary() -> Summary:
    moments = [Moment(position < 60 or position >= 120, position < 60) for position in range(160)]
    moments[3] = Moment(None, True)
    return Summary(
        moments=tuple(moments),
        turned_at=60,
        checks=(
            CheckSummary(60, "keep", "all is well", False, RUN, "http://mlflow/1"),
            CheckSummary(100, "collect more labels", "none yet", True, RUN, "http://mlflow/2"),
            CheckSummary(120, "retrain", "a drop of <b>40</b> points", True, RUN, "http://mlflow/3"),
        ),
        swap_at=120,
        refreshes=(RUN,),
        decisions=("version 1: promote. It is better.",),
        after=None,
        costs=(Cost("fine-tuned", 0.002, 52.0, 0.9),),
        links=(Link("MLflow: the model", "http://mlflow/#/models/reviews"),),
        stages=(("refresh", 65.0), ("look", 25.0)),
        verdict="The loop helped: +100.0 points.",
    )


def test_the_page_tells_all_and_stands_alone(summary: Summary, workspace: Workspace, tmp_path: Path) -> None:
    page = write_report(tmp_path / "report.html", workspace, summary).read_text()
    for said in (
        "The loop helped: +100.0 points.",
        "160, of which 1 failed",
        "by the check after request 100",
        "by the check after request 120",
        "at request 121",
        "$0.00200 (52 prompt tokens each, 90.0% right)",
        "1.5 minutes",
        "http://mlflow/#/models/reviews",
        "the stream turns",
    ):
        assert said in page
    assert "&lt;b&gt;40" in page
    assert "none refused or lost" not in page, "one request did fail"
    assert "<script src" not in page
    assert "<link" not in page


def test_a_loop_that_changed_nothing(summary: Summary, workspace: Workspace, tmp_path: Path) -> None:
    stable = replace(summary, swap_at=None, checks=summary.checks[:1], verdict="The loop changed nothing.")
    page = write_report(tmp_path / "report.html", workspace, stable).read_text()
    assert page.count("never") == 3
    assert "without the loop" not in dict(stable.lines())


def test_rolling_starts_anew_where_the_stream_turns() -> None:
    shares = rolling([True] * 60 + [False] * 60, 60)
    assert math.isnan(shares[8])
    assert shares[9] == shares[59] == 1.0
    assert math.isnan(shares[60])
    assert shares[69] == 0.0


def test_the_terminal_gets_a_short_table(summary: Summary) -> None:
    assert summary.short_lines() == [
        ("before the change", "100.0% right (93.9% to 100.0%, n=59)"),
        ("after the change, first champion", "0.0% right (0.0% to 6.0%, n=60)"),
        ("after the swap, with the loop", "100.0% right (91.2% to 100.0%, n=40)"),
        ("the same requests, without it", "0.0% right (0.0% to 8.8%, n=40)"),
        ("requests", "160, 1 failed, 1.5 minutes in all"),
    ]
    stable = replace(summary, swap_at=None)
    assert [name for name, _ in stable.short_lines()] == [
        "before the change",
        "after the change, first champion",
        "requests",
    ]


def test_a_finished_demo_can_be_read_again(summary: Summary, workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(PerpetuneError, match="no finished demo lies here"):
        read_saved(tmp_path)
    save_summary(tmp_path, summary)
    saved = read_saved(tmp_path)
    assert (saved["requests"], saved["failed"], saved["seconds"]) == (160, 1, 90.0)
    assert (saved["drift_at"], saved["decay_at"], saved["summary"]["swap_at"]) == (100, 120, 120)
    assert saved["accuracies"]["before"]["n"] == 59
    assert len(saved["summary"]["moments"]) == 160
    assert {"torch", "prefect"} <= saved["versions"].keys() and saved["commit"] and saved["device"]
