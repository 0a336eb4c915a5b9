"""With `promote.costs` the monitor, a rollback and a trial judge by what answers cost, as the gate does."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from perpetune.errors import PerpetuneError
from perpetune.loop.rollout.trial import check_trial, start_trial
from perpetune.loop.watch.reference import scored_by_cost
from perpetune.monitoring.detector_state import DETECTOR, from_text
from perpetune.prediction_log.database import open_log
from perpetune.prediction_log.writes import add_feedback, record_rows
from perpetune.records import Example, Feedback, Prediction, RecordedAnswer, Shadow, write_jsonl
from perpetune.tracking import registry
from perpetune.tracking.runs import find_run, log_text

pytestmark = pytest.mark.slow

Open = Callable[..., Any]

COSTS = {"costs": {"bad": 50}}  # `bad` answered as `good` is dear, `good` answered as `bad` costs 1
HELD_OUT = 80
DEAR = [("bad", False) if number % 5 == 0 else ("good", True) for number in range(HELD_OUT)]


def hold_out(world: Any) -> None:
    """The rows of the recorded answers, all of which are `good`: a tenth of them is answered as `bad`."""
    rows = [
        Example(id=f"f{n}", group=f"f{n}", input=f"well {n}", output="good", source="test") for n in range(HELD_OUT)
    ]
    path = world.workspace.split("frozen")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_jsonl(path, rows)


def test_dear_mistakes_are_decay_that_accuracy_hides(watched: Open) -> None:
    world = watched()
    hold_out(world)
    version = world.released(right=0.9)
    world.labelled(version, 0, DEAR)
    assert world.checked().decision.outcome == "keep", "80% right, after 90% of 80 rows, is no proof"

    by_cost = watched(promote=COSTS)
    decision = by_cost.checked().decision
    assert decision.outcome == "retrain", decision.reasons
    evidence = decision.evidence
    assert evidence["metric"] == "cost score" and evidence["labelled_in_all"] == HELD_OUT, (
        "the labels count again, by cost"
    )
    assert evidence["decay"]["reference"]["mean"] == pytest.approx(1 - 0.1 / 50)
    assert evidence["decay"]["window"]["mean"] == pytest.approx(0.8)
    assert evidence["decay"]["margin"] == pytest.approx(0.1 / 50), "costs that double are decay"
    assert from_text(by_cost.tags(version)[DETECTOR]).scored_by


def test_going_back_compares_what_mistakes_cost(watched: Open) -> None:
    world = watched(promote=COSTS)
    hold_out(world)
    first = world.released(right=0.9)
    second = world.released(right=0.95, champion_right=0.9)
    world.labelled(second, 0, DEAR)
    decision = world.checked().decision
    assert (decision.kind, decision.outcome, decision.evidence["previous"]) == ("rollback", "roll back", first)
    assert decision.evidence["previous_score"] == pytest.approx(1 - 0.1 / 50)


def test_without_the_rows_of_the_record_a_check_says_so(watched: Open) -> None:
    world = watched(promote=COSTS)
    version = world.released(right=0.9)
    world.traffic(version, 0.9)
    with pytest.raises(PerpetuneError, match="none of the rows that the champion was evaluated on is in the data"):
        world.checked()


def test_answers_are_judged_by_the_rows_of_today(watched: Open) -> None:
    world = watched(promote=COSTS)
    hold_out(world)
    recorded = [RecordedAnswer(id="f0", holdout="frozen", output="good", confidence=0.9, score=1.0)]
    assert scored_by_cost(world.workspace, recorded)[0].score == 1
    corrected = Example(id="f0", group="f0", input="well 0", output="bad", source="test")
    write_jsonl(world.workspace.split("frozen"), [corrected])
    assert scored_by_cost(world.workspace, recorded)[0].score == 0


@pytest.mark.parametrize(("promote", "outcome"), [({}, "promote"), (COSTS, "abort")])
def test_a_trial_stops_what_misses_the_dear(watched: Open, promote: dict[str, object], outcome: str) -> None:
    world = watched(promote=promote, strategy="shadow")
    hold_out(world)
    first, second = world.released(right=0.9), world.make()
    log_text(find_run(registry.get(world.task, second).run_id), _recorded(), "answers/champion.jsonl")
    start_trial(world.workspace, second)
    log, now = open_log(world.workspace.settings.prediction_log), datetime.now(UTC) + timedelta(seconds=1)
    for number in range(300):
        dear, cheap = number % 20 == 0, number % 5 == 1
        said = "bad" if dear or cheap else "good"
        row = Prediction(
            id=f"r{number}", time=now + timedelta(milliseconds=number), task=world.task, version=first, messages=(),
            input=f"well {number}?", output=said, prompt_tokens=1, completion_tokens=1, latency_ms=10,
        )  # fmt: skip
        unseen = Shadow(request_id=row.id, version=second, time=now, task=world.task, output="good", latency_ms=9.0)
        record_rows(log, [row, unseen])
        add_feedback(log, Feedback(request_id=row.id, time=now, label="bad" if dear else "good", propensity=1.0))
    log.dispose()
    check = check_trial(world.workspace, "flow")
    assert check is not None and check.verdict.outcome == outcome, check and check.verdict.reasons
    quality = check.evidence.quality
    gained, lost = (1 / 5, 1 / 20) if outcome == "promote" else (1 / 5 / 50, 1 / 20)
    assert quality.difference == pytest.approx(gained - lost)
    assert check.evidence.quality_margin == (None if outcome == "promote" else pytest.approx(0.1 / 50))


def _recorded() -> str:
    outputs = ["good" if number < 72 else "bad" for number in range(HELD_OUT)]
    return "".join(
        f'{{"id": "f{number}", "holdout": "frozen", "output": "{output}", "confidence": null, "score": 1.0}}\n'
        for number, output in enumerate(outputs)
    )
