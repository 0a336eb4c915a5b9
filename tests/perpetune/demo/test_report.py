from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from perpetune.demo.report import rolling, write_report
from perpetune.demo.script import CheckSummary
from perpetune.demo.summary import Cost, Link, Moment, Summary
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
        "by the look after request 100",
        "by the look after request 120",
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
