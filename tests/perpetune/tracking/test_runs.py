"""Runs of the real MLflow on a SQLite store."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from mlflow.tracking import MlflowClient

from perpetune.errors import PerpetuneError
from perpetune.tracking.runs import (
    ACTIVE,
    YES,
    Run,
    artifact,
    close_run,
    connect,
    ended_runs,
    log_metrics,
    log_params,
    log_table,
    mark_killed,
    newest_ended,
    newest_finished,
    open_run,
    reopen_run,
    unfinished_runs,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def store(tmp_path_factory: pytest.TempPathFactory, new_mlflow_store: Callable[[Path], str]) -> None:
    folder = tmp_path_factory.mktemp("mlflow")
    connect(new_mlflow_store(folder))
    MlflowClient().create_experiment("colours", artifact_location=str(folder / "artifacts"))


def begin(flow_run_id: str = "a") -> Run:
    tags = {"perpetune.kind": "refresh", "prefect.flow_run_id": flow_run_id}
    return open_run("colours", "refresh", tags, {"train.epochs": 3, "note": "x" * 7000})


def test_a_run_is_resumed_by_another_flow_run() -> None:
    run = begin("a")
    close_run(run, succeeded=False)
    (found,) = unfinished_runs("colours", "refresh")
    assert (found.run, found.running, found.tags["prefect.flow_run_id"]) == (run, False, "a")

    assert reopen_run(found.run, {"prefect.flow_run_id": "b"}) == run
    (found,) = unfinished_runs("colours", "refresh")
    assert (found.run, found.running, found.tags["prefect.flow_run_id"]) == (run, True, "b")
    close_run(run, succeeded=True)
    assert unfinished_runs("colours", "refresh") == []
    assert unfinished_runs("flavours", "refresh") == []


def made(experiment: str, kind: str, status: str, days_ago: float = 0, **tags: str) -> str:
    """A run that began so many days ago."""
    client = MlflowClient()
    found = client.get_experiment_by_name(experiment)
    experiment_id = found.experiment_id if found else client.create_experiment(experiment)
    began = int(1000 * (time.time() - 86_400 * days_ago))
    run = client.create_run(experiment_id, began, {"perpetune.kind": kind, **tags})
    client.update_run(run.info.run_id, status)
    return str(run.info.run_id)


def test_an_interrupted_refresh_is_found_behind_many_failed_checks() -> None:
    failed = made("smells", "refresh", "FAILED", 3)
    killed_in_training = made("smells", "refresh", "FINISHED", 2, **{ACTIVE: YES})
    made("smells", "refresh", "FINISHED", 1)
    checks = [made("smells", "watch", "FAILED", 1 - number / 100) for number in range(51)]
    refreshes = [each.run.id for each in unfinished_runs("smells", "refresh")]
    assert refreshes == [killed_in_training, failed], "the newest first"
    assert [each.run.id for each in unfinished_runs("smells", "watch")][:25] == checks[::-1][:25]


def test_the_newest_check_that_has_ended() -> None:
    old = made("tastes", "watch", "FAILED", 3)
    for _ in range(6):
        made("tastes", "refresh", "FINISHED", 0.1)
    found = newest_ended("tastes", "watch")
    assert found is not None and (found.run_id, found.succeeded) == (old, False), "it is not of the last day"
    new = made("tastes", "watch", "FINISHED", 0.2)
    made("tastes", "watch", "RUNNING")
    found = newest_ended("tastes", "watch")
    assert found is not None and (found.run_id, found.succeeded) == (new, True), "the newest still runs"
    assert newest_ended("nothing", "watch") is None


def test_equal_params_may_be_logged_again_and_others_are_an_error() -> None:
    run = begin()
    log_params(run, {"train.epochs": 3, "note": "x" * 7000})
    with pytest.raises(PerpetuneError, match="was started with other values") as fault:
        log_params(run, {"train.epochs": 4})
    assert run.url in str(fault.value)
    close_run(run, succeeded=True)


def test_a_table_that_is_logged_again_is_replaced(tmp_path: Path) -> None:
    run = begin()
    for score in (0.5, 0.75):
        log_table(run, pd.DataFrame({"system": ["base"], "score": [score]}), "tables/scores.json")
    path = artifact(run.id, "tables/scores.json", tmp_path)
    assert path is not None
    assert json.loads(path.read_text())["data"] == [["base", 0.75]]
    close_run(run, succeeded=True)


def test_ended_runs_have_their_metrics() -> None:
    MlflowClient().create_experiment("sounds")
    runs = [open_run("sounds", "refresh", {"perpetune.kind": "refresh"}, {}) for _ in range(4)]
    close_run(open_run("sounds", "watch", {"perpetune.kind": "watch"}, {}), succeeded=True)
    log_metrics(runs[0], {"train/device_hours": 1.5})
    close_run(runs[0], succeeded=True)
    close_run(runs[1], succeeded=False)
    mark_killed(runs[2])
    found = ended_runs("sounds", "refresh", 0)
    assert [(run.run_id, run.succeeded, dict(run.metrics)) for run in found] == [
        (runs[0].id, True, {"train/device_hours": 1.5}),
        (runs[1].id, False, {}),
    ]
    assert all(run.began <= run.ended for run in found)
    assert ended_runs("sounds", "refresh", found[-1].ended + 60) == []
    assert ended_runs("nothing", "refresh", 0) == []
    newest = newest_finished("sounds", "refresh")
    assert newest is not None and newest.run_id == runs[0].id, "the others failed, were killed, or run"
    assert newest_finished("nothing", "refresh") is None
