"""Earlier refreshes are read from their runs: which helped, what they cost, and how many labels they had."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from perpetune.loop.curate import LABELS, LABELS_SINCE_FALL
from perpetune.loop.run_context import DEVICE_HOURS, TRIGGER
from perpetune.loop.watch.refresh_history import refreshes_before
from perpetune.tracking.registry import Version
from perpetune.tracking.runs import close_run, connect, find_run, log_metrics, open_run

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def store(tmp_path: Path, new_mlflow_store: Callable[[Path], str]) -> None:
    connect(new_mlflow_store(tmp_path))
    MlflowClient().create_experiment("colours", artifact_location=str(tmp_path / "artifacts"))


def refreshed(trigger: str, labels: int | None, *, succeeded: bool = True, hours: float = 0.5) -> str:
    run = open_run("colours", "refresh", {"perpetune.kind": "refresh", TRIGGER: trigger}, {})
    log_metrics(run, {DEVICE_HOURS: hours} | ({} if labels is None else {LABELS: float(labels)}))
    close_run(run, succeeded=succeeded)
    return run.id


def champion_of(run_id: str) -> Version:
    return Version("colours", "1", run_id, {})


def test_the_labels_of_a_change_are_those_since_the_refresh_before_the_first_for_decay() -> None:
    refreshed("decay", 100)  # an earlier change
    refreshed("schedule", 600)
    refreshed("decay", 880)
    champion = champion_of(refreshed("decay", 1100))
    assert refreshes_before(champion, 60).labels_of_change == 500


def test_a_refresh_that_failed_counts_as_one_that_did_not_help_and_brings_no_labels() -> None:
    champion = champion_of(refreshed("schedule", 600))
    refreshed("decay", 900)
    refreshed("decay", 950, succeeded=False)
    refreshed("decay", None)  # from before labels were logged
    found = refreshes_before(champion, 60)
    assert (found.failures, found.labels, found.labels_of_change) == (3, 900, 300)
    assert found.device_hours == 2.0
    assert found.minutes_since is not None and 0 <= found.minutes_since < 5


def test_without_a_refresh_for_decay_there_is_no_change() -> None:
    champion = champion_of(refreshed("schedule", 600))
    refreshed("manual", 700)
    found = refreshes_before(champion, 60)
    assert (found.failures, found.labels, found.labels_of_change) == (0, 700, None)


def test_the_labels_of_a_change_are_those_since_scores_fell_if_the_refresh_says_so() -> None:
    """A year without a change came before: what follows must not wait for as many labels again."""
    refreshed("schedule", 600)
    run_id = refreshed("decay", 20_000)
    log_metrics(find_run(run_id), {LABELS_SINCE_FALL: 220.0})
    champion = champion_of(run_id)
    assert refreshes_before(champion, 60).labels_of_change == 220
