from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from perpetune.curation.running.layout import CARD
from perpetune.explain.status import read_status
from perpetune.loop.curate import LABELS_SINCE_FALL, CuratedData, log_data
from perpetune.loop.run_context import open_loop_run
from perpetune.loop.watch.reference import reference_scores
from perpetune.monitoring.detector_state import DETECTOR, from_text
from perpetune.params import ReferenceParams
from perpetune.prediction_log.database import open_log
from perpetune.prediction_log.labels.requests import Drawn, open_requests, request_labels
from perpetune.prediction_log.writes import add_feedback
from perpetune.records import Feedback, RecordedAnswer
from perpetune.tracking import registry
from perpetune.tracking.runs import close_run, metrics_of

pytestmark = pytest.mark.slow

Open = Callable[..., Any]

LABELS = 80  # of a batch of traffic

PARAMS = ReferenceParams(rows=100, min_recent=3)


def recorded(holdout: str, *scores: float) -> list[RecordedAnswer]:
    return [
        RecordedAnswer(id=f"{holdout}-{number}", holdout=holdout, output="good", confidence=None, score=score)
        for number, score in enumerate(scores)
    ]


def test_the_reference_is_the_recent_holdout_if_it_is_large_enough() -> None:
    frozen = recorded("frozen", 1, 1, 1, 1)
    assert reference_scores([*frozen, *recorded("recent", 0, 1, 0)], PARAMS) == [0, 1, 0]
    assert reference_scores([*frozen, *recorded("recent", 0, 1)], PARAMS) == [1, 1, 1, 1, 0, 1]
    assert reference_scores(frozen, PARAMS) == [1, 1, 1, 1]
    assert reference_scores([], PARAMS) == []


def state(world: Any, version: str) -> Any:
    return from_text(world.tags(version)[DETECTOR])


def test_a_check_saves_its_state_for_the_next_one(watched: Open) -> None:
    world = watched()
    version = world.released(right=0.9)
    world.traffic(version, 0.9, labels=60)
    decision = world.checked().decision
    assert (decision.outcome, decision.evidence["labelled"], decision.evidence["labelled_in_all"]) == ("keep", 60, 60)
    before = state(world, version)
    assert (before.labels, before.total, before.alarms) == (60, 54.0, 0)
    assert world.checked().decision.outcome == "collect more labels"
    assert state(world, version) == before
    said = read_status(world.workspace).detector_state
    assert said is not None
    assert said == "60 independent labels of version 1, threshold 85.0, evidence 0.0 of 20,000"


@pytest.mark.parametrize(
    ("setting", "judging", "said"),
    [
        ("test", 45, "15 labels came unasked and decide nothing: more labels of the same time may come"),
        ("ignore", 45, "15 labels came unasked and decide nothing: watch.unasked is ignore"),
        ("trust", 60, "15 of the 60 labels arrived unasked"),
    ],
)
def test_labels_that_came_unasked_decide_if_that_may_be(watched: Open, setting: str, judging: int, said: str) -> None:
    world = watched(watch={"unasked": setting})
    version = world.released(right=0.9)
    world.traffic(version, 0.9, labels=0)
    log, now = open_log(world.workspace.settings.prediction_log), datetime.now(UTC)
    rows = [f"{version}-0-{number}" for number in range(60)]
    request_labels(log, [Drawn(row, "lot", weight=1.0) for row in rows[:45]], now)
    for row in rows:
        add_feedback(log, Feedback(request_id=row, time=now, label="good"))
    log.dispose()
    decision = world.checked().decision
    assert decision.evidence["labelled"] == judging
    assert [reason for reason in decision.reasons if reason.startswith(said)], decision.reasons


def test_a_check_killed_before_saving_changes_nothing(watched: Open) -> None:
    world = watched()
    version = world.released(right=0.9)
    world.traffic(version, 0.9)
    world.checked()
    left = world.tags(version)[DETECTOR]
    world.traffic(version, 0.4, batch=1)
    assert world.checked().decision.outcome == "retrain"
    after = world.tags(version)[DETECTOR]
    registry.tag_version(world.task, version, {DETECTOR: left})
    assert world.checked().decision.outcome == "retrain"
    assert world.tags(version)[DETECTOR] == after


def test_evidence_of_few_labels_adds_up_and_first_asks_for_urgent_ones(watched: Open) -> None:
    world = watched()
    version = world.released(right=0.9)
    found = []
    for batch in range(10):
        world.traffic(version, 0, batch=batch, labels=1)
        found.append(world.checked())
    outcomes = [each.decision.outcome for each in found]
    assert outcomes[:2] == ["keep", "keep"]
    assert outcomes.count("ask for labels") == 1
    (first,) = [each for each in found if each.decision.outcome == "ask for labels"]
    assert first.asked >= 100, "drawn by lot from the window"
    assert outcomes[-1] == "retrain"
    wanted = outcomes.index("retrain")
    assert outcomes.index("ask for labels") < wanted
    assert set(outcomes[wanted:]) == {"retrain"}, "once it alarms, it goes on"


def test_equal_inputs_of_a_day_count_once(watched: Open) -> None:
    world = watched()
    version = world.released(right=0.9)
    for batch in range(3):
        world.traffic(version, 0, batch=batch, labels=20, text="the same")
        decision = world.checked().decision
        assert decision.outcome == "keep"
        assert decision.evidence["independent"] == (1 if batch == 0 else 0)
    assert state(world, version).labels == 1
    assert any(
        "1 of the" in reason or "0 of the 20 new labels are independent" in reason for reason in decision.reasons
    )


def test_an_alarm_stands_until_answers_are_right_again(watched: Open) -> None:
    world = watched(watch={"consecutive_checks": 2})
    version = world.released(right=0.9)
    world.traffic(version, 0.2)
    assert world.checked().decision.outcome == "confirming"
    assert world.checked().decision.outcome == "confirming", "a look at nothing new confirms nothing"
    world.traffic(version, 0.2, batch=1)
    assert world.checked().decision.outcome == "retrain"
    assert world.checked().decision.outcome == "retrain"
    for batch in range(2, 12):
        world.traffic(version, 1.0, batch=batch)
    assert world.checked().decision.outcome == "keep"


def test_unsuccessful_refreshes_back_off_and_the_budget_ends_them(watched: Open) -> None:
    world = watched(refresh={"cooldown_minutes": 60, "gpu_hours_per_month": 3.0})
    version = world.released(right=0.9)
    world.traffic(version, 0.2)
    for trigger, hours in (("schedule", 0.5), ("decay", 1.0), ("decay", 1.0)):
        world.refreshed(trigger, hours)
    decision = world.checked().decision
    assert decision.outcome == "cooling down"
    assert "the cooldown is 240 minutes, increased from 60 after 2 unsuccessful ones" in decision.reasons[0]
    assert (decision.evidence["unsuccessful_refreshes"], decision.evidence["device_hours"]) == (2, 2.5)
    world.refreshed("decay", 0.5)
    decision = world.checked().decision
    assert decision.outcome == "over budget"
    assert "trained for 3.0 device hours, and 3 are allowed" in decision.reasons[0]


def test_a_refresh_waits_for_labels_since_the_fall_whatever_came_before(watched: Open) -> None:
    world = watched(refresh={"new_labels": 100})
    version = world.released(right=0.9)
    world.traffic(version, 1.0, batch=1, labels=80)
    world.traffic(version, 0.2, batch=2, labels=80)
    decision = world.checked().decision
    assert decision.outcome == "collect more labels"
    assert "of 100 have come since scores began to fall" in decision.reasons[0]
    assert 64 <= decision.evidence["decay"]["labels_since_fall"] <= 80, "16 of the second batch were right"
    world.traffic(version, 0.2, batch=3, labels=40)
    assert world.checked().decision.outcome == "retrain"


def test_a_refresh_that_failed_has_not_helped_either(watched: Open) -> None:
    world = watched(refresh={"cooldown_minutes": 60})
    version = world.released(right=0.9)
    world.traffic(version, 0.2)
    world.refreshed("decay", 0.0, succeeded=False)
    decision = world.checked().decision
    assert (decision.outcome, decision.evidence["unsuccessful_refreshes"]) == ("cooling down", 1)
    assert 0 < decision.evidence["device_hours"] < 0.01, "its whole time"


def test_another_margin_keeps_the_evidence(watched: Open) -> None:
    world = watched()
    version = world.released(right=0.9)
    world.traffic(version, 0.2)
    assert world.checked().decision.outcome == "retrain"
    world = watched(watch={"margin": 0.1})
    world.traffic(version, 1.0, batch=1, labels=1)
    decision = world.checked().decision
    assert (decision.outcome, decision.evidence["labelled"]) == ("retrain", 1)
    assert state(world, version).detector.seen == 81


@pytest.mark.parametrize(
    ("mix_shift", "outcome"), [("name", "mix shift"), ("retrain", "retrain")], ids=["name", "retrain"]
)
def test_more_requests_of_a_hard_label_are_named(watched: Open, mix_shift: str, outcome: str) -> None:
    """Each label is answered as before: "good" always right, "bad" in half of the cases."""
    world = watched(watch={"mix_shift": mix_shift})
    version = world.released(right=1.0)

    def labelled(batch: int, bad: int) -> None:
        kinds = [("bad", number % 2 == 0) for number in range(bad)] + [("good", True)] * (80 - bad)
        world.labelled(version, batch, kinds)

    for batch in range(4):
        labelled(batch, bad=8)
    assert world.checked().decision.outcome == "keep"
    for batch in range(4, 8):
        labelled(batch, bad=60)
    decision = world.checked().decision
    assert decision.outcome == outcome
    mix = decision.evidence["decay"]["mix"]
    assert (mix["by"], mix["grew"]) == ("label", "bad")
    assert mix["within"] < 0.03 < 0.2 < mix["mix"]


def test_a_new_version_has_a_new_detector(watched: Open) -> None:
    world = watched()
    first = world.released(right=0.9)
    world.traffic(first, 0.2)
    world.checked()
    second = world.released(right=0.9)
    world.traffic(second, 1.0)
    assert (world.checked().decision.outcome, state(world, second).labels) == ("keep", 80)


def test_metrics_are_logged_to_the_run(watched: Open) -> None:
    world = watched()
    version = world.released(right=0.9)
    world.traffic(version, 0.2)
    run = open_loop_run(world.workspace, "watch", "manual", "a test", "flow-run")
    decision = world.checked().decision
    assert decision.ids.run_id == run.id, "it went on in the run that its flow run had begun"
    metrics = metrics_of(run.id)
    assert metrics["decay/evidence"] >= 20_000
    assert metrics["decay/score_low"] < metrics["decay/score"] == 0.2 < metrics["decay/score_high"]
    assert metrics["window/drop"] == pytest.approx(0.7)
    assert (metrics["decay/labels"], metrics["decay/alarms_in_a_row"]) == (80, 1)


def test_a_check_imports_neither_training_libraries_nor_evidently() -> None:
    """Whatever its flow imports: a check without drift of its inputs costs the seconds of none of them."""
    flow = Path(__file__).parents[4] / "flows" / "watch.py"
    lines = [line.strip() for line in flow.read_text(encoding="utf-8").splitlines()]
    imports = [line for line in lines if line.startswith("from perpetune.")]
    assert len(imports) > 4
    code = "\n".join(
        ["import sys", *imports, "print({'torch', 'transformers', 'peft', 'evidently'} & set(sys.modules))"]
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert ran.stdout.strip() == "set()", ran.stdout + ran.stderr


def test_a_second_lot_is_asked_for_when_the_first_has_come_and_a_third_is_not(watched: Open) -> None:
    """The evidence stays between the early one and the alarm."""
    world = watched(watch={"run_length": 1e60, "urgent_labels": 20})
    version = world.released(right=0.9)
    world.traffic(version, 0, labels=10)
    first = world.checked()
    assert (first.decision.outcome, first.asked, state(world, version).asked) == ("ask for labels", 20, 1)
    world.traffic(version, 0, batch=1, labels=1)
    assert world.checked().decision.outcome == "keep", "the first lot is still open"
    label_urgent(world)
    second = world.checked()
    assert (second.decision.outcome, second.asked, state(world, version).asked) == ("ask for labels", 19, 2)
    label_urgent(world)
    assert (world.checked().decision.outcome, state(world, version).asked) == ("keep", 2)


def label_urgent(world: Any) -> None:
    """Answers are called wrong, in nearly all of the open urgent requests: one is left out."""
    log = open_log(world.workspace.settings.prediction_log)
    for each in [each for each in open_requests(log, world.task) if each.urgent][1:]:
        add_feedback(log, Feedback(request_id=each.request_id, time=datetime.now(UTC), label="good"))
    log.dispose()


def test_a_refresh_for_decay_records_how_many_labels_came_since_scores_fell(watched: Open) -> None:
    world = watched()
    version = world.released(right=0.9)
    for batch in range(3):
        world.traffic(version, 0.9, batch=batch)
        assert world.checked().decision.outcome == "keep"
    world.traffic(version, 0.2, batch=3)
    assert world.checked().decision.outcome == "retrain"
    root = world.workspace.root
    for path in (root / CARD / "card.html", root / CARD / "card.md", root / "dvc.lock"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    found = {}
    for trigger in ("decay", "schedule"):
        run = open_loop_run(world.workspace, "refresh", trigger, "a test", trigger)
        log_data(world.workspace, run, CuratedData("0", {}, 4 * LABELS))
        close_run(run, succeeded=True)
        found[trigger] = metrics_of(run.id).get(LABELS_SINCE_FALL)
    assert found["schedule"] is None
    assert found["decay"] is not None and LABELS <= found["decay"] <= LABELS + 8, (
        "four batches came, and one of them is new"
    )
