"""The first look after a release that finds decay goes back; a later one asks for a refresh."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from perpetune import registry
from perpetune.curation.layout import REFERENCE
from perpetune.loop.look import Sighting, look
from perpetune.loop.passage import open_passage
from perpetune.loop.release import release
from perpetune.loop.rollback import file_away, go_back
from perpetune.records import Example, Feedback, Message, Prediction, Recorded
from perpetune.serving.log import add_feedback, open_log, record_predictions
from perpetune.status import read_status
from perpetune.tracking import close_run, find_run, log_text

Open = Callable[..., Any]
ROWS = 80


@pytest.fixture
def world(releases: Open) -> Any:
    opened = releases(cooldown_minutes=0)
    folder = opened.workspace.root / REFERENCE
    folder.mkdir(parents=True)
    row = Example(input="fine", output="good", id="r", group="r", source="test")
    (folder / "reference.jsonl").write_text(row.model_dump_json() + "\n")
    return opened


def released(world: Any, *, right: float, champion_right: float | None = None) -> str:
    """A version that evaluation saw answer so often right, beside the champion of then."""
    version: str = world.make()
    run = find_run(registry.get(world.task, version).run_id)
    log_text(run, answers(right), "answers/challenger.jsonl")
    if champion_right is not None:
        log_text(run, answers(champion_right), "answers/champion.jsonl")
    registry.tag_version(world.task, version, {"answers": f"{run.id}/challenger"})
    release(world.workspace, version)
    return version


def answers(right: float) -> str:
    scores = [float(number < right * ROWS) for number in range(ROWS)]
    rows = [
        Recorded(id=f"f{number}", holdout="frozen", output="good" if score else "bad", confidence=None, score=score)
        for number, score in enumerate(scores)
    ]
    return "".join(row.model_dump_json() + "\n" for row in rows)


def traffic(world: Any, version: str, right: float, batch: int = 0) -> None:
    """Answers that were so often right, as labels have shown."""
    log, now = open_log(world.workspace.settings.prediction_log), datetime.now(UTC)
    rows = [
        Prediction(
            id=f"{version}-{batch}-{number}",
            time=now,
            task=world.task,
            version=version,
            messages=(Message(role="user", content="well?"),),
            input="well?",
            output="good" if number < right * ROWS else "bad",
            prompt_tokens=1,
            completion_tokens=1,
            latency_ms=10,
        )
        for number in range(ROWS)
    ]
    record_predictions(log, rows)
    for row in rows:
        add_feedback(log, Feedback(request_id=row.id, time=now, label="good"))
    log.dispose()


def looked(world: Any) -> Sighting:
    run = open_passage(world.workspace, "watch", "manual", "a test", "flow-run")
    sighting = look(world.workspace, run, "flow-run")
    close_run(run, succeeded=True)
    assert sighting is not None
    return sighting


def test_what_was_bad_from_the_start_gives_way_and_what_decays_later_is_tuned_anew(world: Any) -> None:
    first = released(world, right=0.9)
    second = released(world, right=0.95, champion_right=0.9)
    traffic(world, second, 0.4)
    decision = looked(world).decision
    assert (decision.kind, decision.outcome, decision.ids.model_version) == ("rollback", "roll back", second)
    evidence = json.loads(decision.to_json())["evidence"]
    assert (evidence["previous"], evidence["previous_score"], evidence["earlier_looks"]) == (first, 0.9, 0)
    went = go_back(world.workspace, decision.reason)
    file_away(decision, went)
    assert (went.rolled_back, went.restored, world.aliases()) == (second, first, [first, None, None])
    lines = {line.version: line for line in read_status(world.workspace).versions}
    assert (lines[second].release, lines[second].decision) == ("rolled back", "roll back")

    traffic(world, first, 0.4)
    decision = looked(world).decision
    assert (decision.outcome, decision.ids.model_version) == ("retrain", first), "there is nothing left to go back to"


def test_a_later_look_asks_for_a_refresh(world: Any) -> None:
    released(world, right=0.9)
    second = released(world, right=0.95, champion_right=0.9)
    traffic(world, second, 0.95)
    assert looked(world).decision.outcome == "keep"
    traffic(world, second, 0.4, batch=1)
    assert looked(world).decision.outcome == "retrain"


def test_a_previous_champion_known_to_be_worse_does_not_come_back(world: Any) -> None:
    released(world, right=0.3)
    second = released(world, right=0.95, champion_right=0.3)
    traffic(world, second, 0.4)
    assert looked(world).decision.outcome == "retrain"
