"""Unlabelled traffic of another kind with low confidence: the check requests labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from perpetune.curation.running.layout import REFERENCE
from perpetune.explain.status import read_status
from perpetune.loop.rollout.deploy import release
from perpetune.loop.run_context import open_loop_run
from perpetune.loop.watch.check import CheckResult, check
from perpetune.loop.watch.label_requests import ask_for_labels, draw_standing_lot
from perpetune.monitoring.window import Window
from perpetune.prediction_log.database import open_log
from perpetune.prediction_log.labels.requests import Drawn, open_requests, request_labels
from perpetune.prediction_log.queries import recent_predictions
from perpetune.prediction_log.writes import record_rows
from perpetune.records import Example, Message, Prediction, RecordedAnswer, write_jsonl
from perpetune.tracking import registry
from perpetune.tracking.runs import close_run, find_run, log_text

pytestmark = pytest.mark.slow

ROWS = 80
DAY = timedelta(days=1)


@pytest.fixture
def world(releases: Callable[..., Any]) -> Any:
    """A champion that was sure of its answers to the reference."""
    opened = releases()
    rows = [
        Example(input=f"fine work {number}", output="good", id=f"f{number}", group=f"f{number}", source="test")
        for number in range(ROWS)
    ]
    write_jsonl(opened.workspace.root / REFERENCE / "reference.jsonl", rows)
    version = opened.make()
    run = find_run(registry.get(opened.task, version).run_id)
    answers = [
        RecordedAnswer(id=row.id, holdout="frozen", output="good", confidence=0.9 + number % 9 / 100, score=1.0)
        for number, row in enumerate(rows)
    ]
    log_text(run, "".join(row.model_dump_json() + "\n" for row in answers), "answers/challenger.jsonl")
    registry.tag_version(opened.task, version, {"answers": f"{run.id}/challenger"})
    release(opened.workspace, version)
    return opened


def asked(world: Any, text: str, confidence: float, days: float = 0) -> None:
    log = open_log(world.workspace.settings.prediction_log)
    rows = [
        Prediction(
            id=f"r{number}",
            time=datetime.now(UTC) - days * DAY,
            task=world.task,
            version="1",
            messages=(Message(role="user", content=text),),
            input=f"{text} {number}",
            output="good",
            prompt_tokens=1,
            completion_tokens=1,
            latency_ms=10,
            confidence=confidence + number % 9 / 100,
        )
        for number in range(ROWS)
    ]
    record_rows(log, rows)
    log.dispose()


def checked(world: Any) -> CheckResult:
    run = open_loop_run(world.workspace, "watch", "manual", "a test", "flow-run")
    check_result = check(world.workspace, run, "flow-run")
    close_run(run, succeeded=True)
    assert check_result is not None
    return check_result


def test_labels_are_requested_once(world: Any) -> None:
    asked(world, "an altogether different matter of strange and unseen words", 0.5)
    check_result = checked(world)
    decision = check_result.decision
    assert (decision.outcome, check_result.asked) == ("ask for labels", 50)
    assert decision.reason.startswith("The accuracy estimated from confidence has fallen by more than the margin")
    assert decision.evidence["estimate"]["window"]["rows"] == ROWS
    assert decision.evidence["estimate"]["interval"]["low"] > 0.3
    log = open_log(world.workspace.settings.prediction_log)
    reasons = Counter(each.why for each in open_requests(log, world.task))
    assert reasons.total() == 50 and 10 <= reasons["lot"] <= 30, "20 on average"
    log.dispose()
    assert read_status(world.workspace).open_label_requests == 50
    again = checked(world)
    assert (again.decision.outcome, again.asked) == ("ask for labels", 0), "50 are still open"


def test_drift_with_high_confidence_requests_no_labels(world: Any) -> None:
    asked(world, "an altogether different matter of strange and unseen words", 0.9)
    check_result = checked(world)
    assert check_result.decision.evidence["drift"]["inputs_drifted"]
    assert (check_result.decision.outcome, check_result.asked) == ("collect more labels", 0)
    assert any(
        reason.startswith("The accuracy estimated from confidence is not shown to have fallen so far")
        for reason in check_result.decision.reasons
    )


def test_a_standing_lot_is_drawn_in_quiet_times(world: Any) -> None:
    asked(world, "fine work", 0.9, days=2.5)
    champion = registry.get(world.task, "1")
    assert draw_standing_lot(world.workspace, champion) == 12, "5 a day"
    assert draw_standing_lot(world.workspace, champion) == 0, "a repeated check changes nothing"
    log = open_log(world.workspace.settings.prediction_log)
    assert {each.why for each in open_requests(log, world.task)} == {"lot"}
    log.dispose()


def test_urgent_requests_are_drawn_by_lot_and_shown_first(world: Any) -> None:
    asked(world, "fine work", 0.9)
    log = open_log(world.workspace.settings.prediction_log)
    rows = recent_predictions(log, world.task, limit=None)
    request_labels(log, [Drawn(rows[0].id, "doubt", 0.5, 1.0)], datetime.now(UTC), undrawn={rows[1].id: 0.5})
    champion, window = registry.get(world.task, "1"), Window(rows, (), {}, "classification")
    assert ask_for_labels(world.workspace, champion, window, urgent=30) == 30
    assert ask_for_labels(world.workspace, champion, window, urgent=30) == 0, "they are open"
    found = open_requests(log, world.task)
    assert [each.urgent for each in found] == [True] * 30 + [False]
    assert {each.why for each in found[:30]} == {"lot"}
    log.dispose()
