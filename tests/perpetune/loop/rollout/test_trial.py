from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import insert

from perpetune.errors import PerpetuneError
from perpetune.explain.status import decisions_of, read_status
from perpetune.loop.rollout.deploy import release
from perpetune.loop.rollout.trial import check_trial, needs_trial, start_trial
from perpetune.prediction_log.database import open_log
from perpetune.prediction_log.labels.requests import open_requests
from perpetune.prediction_log.tables import failures
from perpetune.prediction_log.writes import add_feedback, record_rows
from perpetune.records import Feedback, Message, Prediction, Route, Shadow

pytestmark = pytest.mark.slow

Open = Callable[..., Any]


def answer(world: Any, version: str, outputs: Sequence[str], route: Route, *, labelled: bool = True) -> list[str]:
    """Log answers by a version, all of which should have been "good"; returns their ids."""
    log = open_log(world.workspace.settings.prediction_log)
    now = datetime.now(UTC) + timedelta(seconds=1)
    rows = [
        Prediction(
            id=f"{version}-{route}-{number}",
            time=now + timedelta(milliseconds=number),
            task=world.task,
            version=version,
            messages=(Message(role="user", content=f"well {number}?"),),
            input=f"well {number}?",
            output=output,
            prompt_tokens=1,
            completion_tokens=1,
            latency_ms=10,
            route=route,
        )
        for number, output in enumerate(outputs)
    ]
    record_rows(log, rows)
    if labelled:
        for row in rows:
            add_feedback(log, Feedback(request_id=row.id, time=now, label="good"))
    log.dispose()
    return [row.id for row in rows]


def right(chance: float, count: int) -> list[str]:
    dice = random.Random(count)
    return ["good" if dice.random() < chance else "bad" for _ in range(count)]


def on_trial(world: Any) -> tuple[str, str]:
    first, second = world.make(), world.make()
    release(world.workspace, first)
    start_trial(world.workspace, second)
    return first, second


def test_a_trial_needs_a_champion_and_a_strategy(releases: Open) -> None:
    world = releases(strategy="canary")
    assert not needs_trial(world.workspace)
    release(world.workspace, world.make())
    assert needs_trial(world.workspace)
    assert not needs_trial(releases(strategy="immediate").workspace)
    assert check_trial(world.workspace, "flow") is None


def test_a_good_canary_is_promoted(releases: Open, gateway: Any) -> None:
    world = releases(gateway.url, strategy="canary", margin=0.15)
    gateway.task = world.task
    first, second = on_trial(world)
    assert world.aliases() == [first, None, second]
    check = check_trial(world.workspace, "flow")
    assert check is not None and (check.verdict.outcome, check.decision) == ("continue", None)
    answer(world, first, right(0.8, 300), "champion")
    answer(world, second, ["good"] * 200, "canary")
    answer(world, second, ["bad"] * 100, "pinned")
    check = check_trial(world.workspace, "flow")
    assert check is not None and check.released is not None and check.released.served
    assert (check.evidence.requests, check.evidence.quality.challenger) == (200, 1.0), "pinned requests do not count"
    assert (world.aliases(), gateway.serving) == ([second, first, None], second)
    assert check_trial(world.workspace, "flow") is None
    assert world.tags(second)["release.state"] == "released"


def test_a_bad_canary_is_aborted_and_the_record_is_logged(releases: Open, gateway: Any) -> None:
    world = releases(gateway.url, strategy="canary")
    gateway.task = world.task
    first, second = on_trial(world)
    lines = {line.version: line for line in read_status(world.workspace).versions}
    assert lines[second].release == "canary, 10%"
    answer(world, first, right(0.9, 300), "champion")
    answer(world, second, right(0.3, 60), "canary")
    check = check_trial(world.workspace, "flow")
    assert check is not None and check.decision is not None and check.verdict.outcome == "abort"
    assert "is worse than the champion" in check.decision.reason
    assert world.aliases() == [first, None, None]
    assert gateway.asked[-1] == "/v1/release/check", "the gateway reloads at once"
    lines = {line.version: line for line in read_status(world.workspace).versions}
    assert (lines[second].release, lines[second].decision) == ("aborted", "abort")
    with pytest.raises(PerpetuneError, match="has no decision record"):
        decisions_of(world.workspace, second)  # the record of the promotion, which this test made none of


def test_errors_abort_a_canary(releases: Open) -> None:
    world = releases(strategy="canary")
    first, second = on_trial(world)
    answer(world, first, ["good"] * 300, "champion", labelled=False)
    log = open_log(world.workspace.settings.prediction_log)
    now = datetime.now(UTC) + timedelta(seconds=1)
    rows = [
        {
            "id": f"f{number}",
            "time": now,
            "task": world.task,
            "version": second,
            "route": "canary",
            "code": "engine_down",
            "latency_ms": 5.0,
        }
        for number in range(30)
    ]
    with log.begin() as connection:
        connection.execute(insert(failures), rows)
    log.dispose()
    check = check_trial(world.workspace, "flow")
    assert check is not None and check.verdict.outcome == "abort"
    assert "more errors than the champion" in check.verdict.reasons[0]


def test_a_shadow_is_compared_on_the_same_requests(releases: Open) -> None:
    world = releases(strategy="shadow")
    first, second = on_trial(world)
    ids = answer(world, first, right(0.7, 250), "champion")
    unseen(world, second, ids, ["good"] * 250)
    check = check_trial(world.workspace, "flow")
    assert check is not None and check.verdict.outcome == "promote", check
    assert (check.evidence.strategy, check.evidence.requests, check.evidence.quality.rows) == ("shadow", 250, 250)
    assert check.asked == 0, "all labels are there, and nearly all requests are labelled"
    assert world.aliases() == [second, first, None]


@pytest.mark.parametrize("strategy", ["shadow", "canary"])
def test_only_labels_of_disagreements_are_asked_for_and_decide(releases: Open, strategy: str) -> None:
    """In a canary, too, the other version answers the same requests unseen."""
    world = releases(strategy=strategy, max_requests=300)
    first, second = on_trial(world)
    answers, others = ["good"] * 300, ["bad" if number % 5 == 0 else "good" for number in range(300)]
    seen_by, hidden, seen = (first, second, others) if strategy == "shadow" else (second, first, answers)
    ids = answer(world, seen_by, seen, "champion" if strategy == "shadow" else "canary", labelled=False)
    unseen(world, hidden, ids, answers if strategy == "shadow" else others)
    check = check_trial(world.workspace, "flow")
    assert check is not None
    assert check.verdict.outcome == "continue", check.verdict.reasons
    assert (check.evidence.quality.rows, check.evidence.quality.differing) == (300, 60)
    wanted = wanted_labels(world)
    assert 20 <= len(wanted) == check.asked == check.evidence.awaited <= 60
    assert {ids.index(each) % 5 for each in wanted} == {0}, "where both answer alike no label is needed"
    assert "the trial waits for" in check.verdict.reasons[0]

    say(world, wanted[: len(wanted) // 2], "good")
    check = check_trial(world.workspace, "flow")
    assert check is not None and check.asked == 0 and wanted_labels(world) == wanted[len(wanted) // 2 :]
    say(world, wanted[len(wanted) // 2 :], "good")
    check = check if check.decision else check_trial(world.workspace, "flow")
    assert check is not None
    assert check.verdict.outcome == "promote", check.verdict.reasons
    assert "300 requests, of which 60 are answered differently" in check.verdict.reasons[0]
    assert check.evidence.unasked == 0 and world.aliases() == [second, first, None]


def test_a_worse_challenger_is_aborted_before_its_last_request(releases: Open) -> None:
    world = releases(strategy="canary", max_requests=1000)
    first, second = on_trial(world)
    ids = answer(
        world, second, ["bad" if number % 4 == 0 else "good" for number in range(300)], "canary", labelled=False
    )
    unseen(world, first, ids, ["good"] * 300)
    check = check_trial(world.workspace, "flow")
    assert check is not None and check.verdict.outcome == "continue" and check.asked >= 10
    say(world, wanted_labels(world), "good")
    check = check_trial(world.workspace, "flow")
    assert check is not None
    assert check.verdict.outcome == "abort", check.verdict.reasons
    assert "is worse than the champion by more than the margin" in check.verdict.reasons[0]


def test_complaints_of_disagreements_decide_nothing(releases: Open) -> None:
    """Users of a canary say where its answer was wrong; where it was right they say nothing."""
    world = releases(strategy="canary", max_requests=1000, labels=0)
    first, second = on_trial(world)
    ids = answer(
        world, second, ["bad" if number % 4 == 0 else "good" for number in range(400)], "canary", labelled=False
    )
    unseen(world, first, ids, ["good" if number % 4 == 0 else "bad" for number in range(400)])
    say(world, ids[::4], "good")
    check = check_trial(world.workspace, "flow")
    assert check is not None and check.verdict.outcome == "continue" and check.asked == 0
    assert (check.evidence.quality.differing, check.evidence.quality.labels) == (400, 0)
    assert any("labels came unasked and decide nothing" in reason for reason in check.verdict.reasons)


def unseen(world: Any, version: str, ids: Sequence[str], outputs: Sequence[str]) -> None:
    """The version's answers to these requests, which nobody saw."""
    rows = [
        Shadow(request_id=each, version=version, time=datetime.now(UTC), task=world.task, output=output, latency_ms=9.0)
        for each, output in zip(ids, outputs, strict=True)
    ]
    log = open_log(world.workspace.settings.prediction_log)
    record_rows(log, rows)
    log.dispose()


def wanted_labels(world: Any) -> list[str]:
    log = open_log(world.workspace.settings.prediction_log)
    try:
        return [each.request_id for each in open_requests(log, world.task)]
    finally:
        log.dispose()


def say(world: Any, ids: Sequence[str], label: str) -> None:
    log = open_log(world.workspace.settings.prediction_log)
    for each in ids:
        add_feedback(log, Feedback(request_id=each, time=datetime.now(UTC), label=label))
    log.dispose()


def test_a_trial_ends_if_the_gateway_refuses_it(releases: Open, gateway: Any) -> None:
    world = releases(gateway.url, strategy="canary")
    gateway.task = world.task
    first, second = world.make(), world.make()
    release(world.workspace, first)
    gateway.refuses.add(second)
    with pytest.raises(PerpetuneError, match=f"cannot serve version {second} on trial: version {second} does not load"):
        start_trial(world.workspace, second)
    assert world.aliases() == [first, None, None]
    assert world.tags(second)["release.state"] == "refused"
    assert check_trial(world.workspace, "flow") is None
