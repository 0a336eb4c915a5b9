"""Checks in a row: what they test, at which level, and what the next one still knows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy
from predictions import answered

from perpetune.curation.running.layout import REFERENCE
from perpetune.loop.watch.drift_check import RECENT, check_drift, drift_state
from perpetune.model.weights import must_be_fetched, resolve, weights_digest
from perpetune.monitoring.drift_state import DRIFT, DriftState, from_text, level_of_test, to_text
from perpetune.monitoring.input_drift import BOTH, TEST
from perpetune.monitoring.window import Window
from perpetune.params import EvaluateParams
from perpetune.policy.retraining import DriftEvidence
from perpetune.prediction_log.answers.day_window import predictions_of_a_day
from perpetune.prediction_log.answers.embeddings import store_embeddings
from perpetune.prediction_log.database import open_log
from perpetune.prediction_log.writes import record_rows
from perpetune.records import Example, Prediction, write_jsonl
from perpetune.statistics.sequential.alarm_budget import LEAST_LEVEL, MOST_SAVED, PART, AlarmBudget
from perpetune.tracking.registry import Version

pytestmark = pytest.mark.slow

NOW = datetime.now(UTC).replace(microsecond=0)
OLD = "where is card number {}"
NEW = "a poem about the sea, verse {}"


def window(prediction: Callable[..., Prediction], text: str, rows: int, time: datetime) -> Window:
    reference = [
        Example(input=OLD.format(number), output="good", id=f"e{number}", group=f"e{number}", source="test")
        for number in range(1000, 1400, 2)
    ]
    asked = [
        prediction(
            number, input=text.format(1001 + 2 * number), time=time - timedelta(seconds=rows - number), confidence=None
        )
        for number in range(rows)
    ]
    return Window(asked, reference, {}, "generation")


@pytest.fixture
def champion(releases: Callable[..., Any]) -> tuple[Any, Version]:
    from perpetune.tracking import registry

    opened = releases()
    return opened.workspace, registry.get(opened.task, opened.make())


def test_a_check_repeats_the_last_result_until_there_is_something_new(
    champion: tuple[Any, Version], prediction: Callable[..., Prediction], tmp_path: Path
) -> None:
    workspace, version = champion
    seen, page = window(prediction, NEW, 120, NOW), tmp_path / "drift.html"
    first, state = check_drift(workspace, version, seen, DriftState(), page, NOW)
    assert first.inputs_drifted and first.inputs is not None and first.tested == NOW
    assert first.inputs.level == pytest.approx(MOST_SAVED / PART / 2), "half is for the predictions"
    kept = from_text(to_text(state))
    assert kept == state, "what the tag holds is what was found"
    again, same = check_drift(workspace, version, seen, kept, page, NOW + timedelta(minutes=5))
    assert (again, same) == (first, kept), "the same requests are not tested again"
    assert "Last tested" in page.read_text(encoding="utf-8")
    later = NOW + timedelta(hours=2)
    quiet, _ = check_drift(workspace, version, window(prediction, OLD, 120, later), kept, page, later)
    assert not quiet.inputs_drifted and quiet.tested == later


def test_a_new_champion_inherits_the_budget_and_no_result(releases: Callable[..., Any]) -> None:
    """Else every promotion would bring the budget of another month."""
    from perpetune.tracking import registry

    opened = releases()
    old, new = opened.make(), opened.make()
    left = AlarmBudget(0.01, NOW)
    found = DriftEvidence(True, 100, 600, 0.0, True, False, {}, tested=NOW)
    registry.tag_version(opened.task, old, {DRIFT: to_text(DriftState(left, found))})
    state = drift_state(registry.get(opened.task, new))
    assert state == DriftState(budget=left)
    assert level_of_test(state, NOW, 1.0, 0, 100) == pytest.approx(LEAST_LEVEL), "the first test does not wait"
    assert drift_state(registry.get(opened.task, old)).last == found


def test_a_budget_is_inherited_from_a_previous_champion_of_long_ago(releases: Callable[..., Any]) -> None:
    from mlflow.tracking import MlflowClient

    from perpetune.tracking import registry

    opened = releases()
    old = opened.make()
    registry.promote(opened.task, old)
    registry.tag_version(opened.task, old, {DRIFT: to_text(DriftState(AlarmBudget(0.01, NOW)))})
    for _ in range(RECENT):
        MlflowClient().create_model_version(opened.task, "nowhere")
    new = opened.make()
    registry.promote(opened.task, new)
    assert drift_state(registry.get(opened.task, new)) == DriftState(AlarmBudget(0.01, NOW))


@pytest.mark.parametrize(("by_day", "drifted"), [("good", False), ("bad", True)])
def test_a_night_is_no_drift_of_the_predictions(watched: Callable[..., Any], by_day: str, drifted: bool) -> None:
    """At night all answers are `bad`; the newest 300 of 2,400 a day are of the night alone."""
    world = watched()
    version = world.released(right=0.5)
    rows = [Example(input=f"well {n}", output="good", id=f"f{n}", group=f"f{n}", source="test") for n in range(80)]
    write_jsonl(world.workspace.root / REFERENCE / "reference.jsonl", rows)
    begin, log = NOW - timedelta(days=1), open_log(world.workspace.settings.prediction_log)
    asked = [
        answered(
            f"r{number}", f"well {number}", by_day if number < 1200 else "bad", task=world.task, version=version,
            time=begin + number * timedelta(days=1) / 2400,
        )
        for number in range(2400)
    ]  # fmt: skip
    record_rows(log, asked)
    newest = predictions_of_a_day(log, world.task, version, 300)
    assert len(newest) == 300 and [newest[0].id, newest[-1].id] == ["r0", "r2399"]
    assert [row.id for row in predictions_of_a_day(log, world.task, version, 2400)] == [row.id for row in asked]
    log.dispose()
    found = world.checked().decision.evidence["drift"]
    assert found["judged"] and found["rows"] == 300
    assert found["predictions_drifted"] is drifted, found["columns"]


def test_too_few_requests_cost_nothing(
    champion: tuple[Any, Version], prediction: Callable[..., Prediction], tmp_path: Path
) -> None:
    workspace, version = champion
    found, state = check_drift(
        workspace, version, window(prediction, NEW, 20, NOW), DriftState(), tmp_path / "drift.html", NOW
    )
    assert not found.judged and state == DriftState()


def test_logged_embeddings_are_tested_if_they_are_of_these_days(
    champion: tuple[Any, Version], prediction: Callable[..., Prediction], tmp_path: Path
) -> None:
    """The encoder's weights are in the repository's assets; without them there is nothing to test here."""
    workspace, version = champion
    settings = workspace.settings.model_copy(update={"assets": Path("assets").absolute()})
    evaluate = workspace.params.evaluate.model_copy(update={"encoder": EvaluateParams().encoder})
    params = workspace.params.model_copy(update={"evaluate": evaluate})
    workspace, encoder = replace(workspace, settings=settings, params=params), evaluate.encoder
    if encoder is None or must_be_fetched(encoder, workspace.assets):
        pytest.skip("the encoder is not on this machine")
    seen = window(prediction, OLD, 80, NOW)
    logged = [row.model_copy(update={"task": version.task, "version": version.version}) for row in seen.predictions]
    log: sqlalchemy.Engine = open_log(workspace.settings.prediction_log)
    record_rows(log, logged)
    name = weights_digest(resolve(encoder, workspace.assets, setting="evaluate.encoder"))[:16]
    vectors = np.random.default_rng(1).normal(size=(80, 384))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    store_embeddings(log, name, {row.id: vectors[place] for place, row in enumerate(logged)})
    log.dispose()
    found, _ = check_drift(workspace, version, seen, DriftState(), tmp_path / "drift.html", NOW)
    assert found.inputs is not None and found.inputs.test == BOTH and found.inputs_drifted, "their vectors are random"
    newer = window(prediction, OLD, 80, NOW + timedelta(days=1))
    stale, _ = check_drift(workspace, version, newer, DriftState(), tmp_path / "drift.html", NOW + timedelta(days=1))
    assert stale.inputs is not None and stale.inputs.test == TEST
