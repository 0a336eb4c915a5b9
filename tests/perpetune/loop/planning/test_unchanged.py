"""A workspace whose last refresh made version 2, with champion 1."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from perpetune.curation.running.dvc import data_version
from perpetune.loop.curate import SPLIT_NAMES, CuratedData, read_split
from perpetune.loop.planning.unchanged import why_unchanged
from perpetune.prediction_log.database import open_log
from perpetune.prediction_log.writes import record_rows
from perpetune.records import Prediction
from perpetune.tracking import registry
from perpetune.workspace import Workspace

pytestmark = pytest.mark.slow


def curated(workspace: Workspace) -> CuratedData:
    rows = {name: len(read_split(workspace, name)) for name in SPLIT_NAMES}
    return CuratedData(data_version(workspace.root).version, rows, 0)


def test_the_same_data_and_settings_are_not_tried_again(twice: Workspace) -> None:
    now = curated(twice)

    said = why_unchanged(twice, now, "manual")
    assert said is not None and said.startswith("same data, settings and programs as the refresh of")
    assert why_unchanged(twice, replace(now, version="other"), "manual") is None


def test_other_settings_are_worth_a_refresh(twice: Workspace) -> None:
    train = twice.params.train.model_copy(update={"learning_rate": 0.02})
    other = replace(twice, params=twice.params.model_copy(update={"train": train}))

    assert why_unchanged(other, curated(twice), "manual") is None


def test_automatic_refreshes_wait_for_rows_and_labels(twice: Workspace) -> None:
    now = replace(curated(twice), version="other", labels=1)

    assert "new rows since the refresh of" in str(why_unchanged(twice, now, "schedule"))
    assert "1 of " in str(why_unchanged(twice, now, "decay"))
    many = replace(now, rows={**now.rows, "train": 10 * now.rows["train"], "recent": 1_000}, labels=10_000)
    assert why_unchanged(twice, many, "schedule") is None
    assert why_unchanged(twice, many, "decay") is None


def test_a_schedule_waits_for_rows_or_unlabelled_requests_that_could_show_a_gain(
    twice: Workspace, prediction: Callable[..., Prediction]
) -> None:
    few = replace(curated(twice), version="other", labels=0)
    few = replace(few, rows={**few.rows, "train": 10 * few.rows["train"], "recent": 60})
    assert "60 rows would more likely miss a gain of 5 points" in str(why_unchanged(twice, few, "schedule"))
    assert why_unchanged(twice, few, "manual") is None
    log = open_log(twice.settings.prediction_log)
    record_rows(log, [prediction(number, task=twice.params.task.name) for number in range(200)])
    log.dispose()
    assert why_unchanged(twice, few, "schedule") is None, "labels of disagreements among these can decide"
    params = twice.params.promote.model_copy(update={"disagreement_labels": 0})
    alone = replace(twice, params=twice.params.model_copy(update={"promote": params}))
    assert why_unchanged(alone, few, "schedule") is None, "other settings are worth a refresh"


def test_another_champion_is_worth_a_refresh(twice: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    champion = registry.find("colours", "champion")
    assert champion is not None
    monkeypatch.setattr(registry, "find", lambda task, alias: replace(champion, version="9"))

    assert why_unchanged(twice, curated(twice), "manual") is None
