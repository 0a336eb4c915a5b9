"""Decay that the first labels after a release show goes back; later decay asks for a refresh."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from perpetune.explain.status import read_status
from perpetune.loop.rollout.rollback import file_away, go_back

pytestmark = pytest.mark.slow

Open = Callable[..., Any]


@pytest.fixture
def world(detector_state: Open) -> Any:
    return detector_state()


def test_what_was_bad_from_the_start_gives_way_and_what_decays_later_is_tuned_anew(world: Any) -> None:
    first = world.released(right=0.9)
    second = world.released(right=0.95, champion_right=0.9)
    world.traffic(second, 0.4)
    decision = world.looked().decision
    assert (decision.kind, decision.outcome, decision.ids.model_version) == ("rollback", "roll back", second)
    evidence = json.loads(decision.to_json())["evidence"]
    assert (evidence["previous"], evidence["previous_score"], evidence["alarmed_by"]) == (first, 0.9, 80)
    went = go_back(world.workspace, decision.reason)
    file_away(decision, went)
    assert (went.rolled_back, went.restored, world.aliases()) == (second, first, [first, None, None])
    lines = {line.version: line for line in read_status(world.workspace).versions}
    assert (lines[second].release, lines[second].decision) == ("rolled back", "roll back")

    world.traffic(first, 0.4)
    decision = world.looked().decision
    assert (decision.outcome, decision.ids.model_version) == ("retrain", first), "there is nothing left to go back to"


def test_later_decay_asks_for_a_refresh(detector_state: Open) -> None:
    world = detector_state(watch={"window": 100})
    world.released(right=0.9)
    second = world.released(right=0.95, champion_right=0.9)
    world.traffic(second, 0.95)
    assert world.looked().decision.outcome == "keep"
    world.traffic(second, 0.4, batch=1)
    assert world.looked().decision.outcome == "retrain"


def test_a_previous_champion_known_to_be_worse_does_not_come_back(world: Any) -> None:
    world.released(right=0.3)
    second = world.released(right=0.95, champion_right=0.3)
    world.traffic(second, 0.4)
    assert world.looked().decision.outcome == "retrain"


def test_no_cooldown_and_no_budget_hold_up_going_back(detector_state: Open) -> None:
    world = detector_state(refresh={"cooldown_minutes": 60, "gpu_hours_per_month": 1.0})
    world.released(right=0.9)
    second = world.released(right=0.95, champion_right=0.9)
    world.refreshed("manual", 2.0)
    world.traffic(second, 0.4)
    assert world.looked().decision.outcome == "roll back"
