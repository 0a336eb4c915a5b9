"""Verdicts on held-out rows are counted over refreshes, by row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from workspaces import write_params

from perpetune.loop.assess.holdout_uses import count_verdict, uses_before, uses_of
from perpetune.policy.promotion.evidence import HoldoutUse
from perpetune.records import Example
from perpetune.tracking.runs import close_run, connect, open_run
from perpetune.workspace import Workspace, open_workspace

pytestmark = pytest.mark.slow


def rows(names: Sequence[int]) -> list[Example]:
    return [Example(input="?", output="a", id=f"row-{n}", group=f"row-{n}", source="t") for n in names]


@pytest.fixture
def workspace(tmp_path: Path, new_mlflow_store: Callable[[Path], str]) -> Workspace:
    connect(new_mlflow_store(tmp_path))
    MlflowClient().create_experiment("colours", artifact_location=str(tmp_path / "artifacts"))
    write_params(tmp_path, task={"name": "colours"})
    return open_workspace(tmp_path)


def test_new_rows_take_the_place_of_used_ones(workspace: Workspace) -> None:
    first = open_run("colours", "refresh", {}, {})
    ten = {"frozen": rows(range(10))}
    assert uses_before(workspace, first) == {}
    assert uses_of(ten, {}) == {"frozen": HoldoutUse(0.0, 10, 10)}
    count_verdict(first, ten, {})
    count_verdict(first, ten, uses_before(workspace, first))  # the refresh was resumed
    close_run(first, succeeded=True)

    failed = open_run("colours", "refresh", {}, {})  # no verdict
    close_run(failed, succeeded=False)

    second = open_run("colours", "refresh", {}, {})
    before = uses_before(workspace, second)
    assert uses_of(ten, before) == {"frozen": HoldoutUse(1.0, 10, 0)}
    grown = {"frozen": rows(range(5, 20)), "recent": rows(range(100, 104))}
    assert uses_of(grown, before) == {"frozen": HoldoutUse(5 / 15, 15, 10), "recent": HoldoutUse(0.0, 4, 4)}
    count_verdict(second, grown, before)

    third = open_run("colours", "refresh", {}, {})
    before = uses_before(workspace, third)
    assert [before["frozen"][f"row-{n}"] for n in (0, 5, 19)] == [1, 2, 1]
    assert before["recent"] == {f"row-{n}": 1 for n in range(100, 104)}
