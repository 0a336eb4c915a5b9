"""Decay that the first labels after a release show goes back; later decay asks for a refresh."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from perpetune.explain.status import read_status
from perpetune.loop.rollout.rollback import log_rollback, roll_back

pytestmark = pytest.mark.slow

Open = Callable[..., Any]


@pytest.fixture
def world(watched: Open) -> Any:
    return watched()


def test_early_decay_rolls_back_and_later_decay_retrains(world: Any) -> None:
    first = world.released(right=0.9)
    second = world.released(right=0.95, champion_right=0.9)
    world.traffic(second, 0.4)
    decision = world.checked().decision
    assert (decision.kind, decision.outcome, decision.ids.model_version) == ("rollback", "roll back", second)
    evidence = json.loads(decision.to_json())["evidence"]
    assert (evidence["previous"], evidence["previous_score"]) == (first, 0.9)
    assert 0 < evidence["alarmed_by"] <= 80
    went = roll_back(world.workspace, decision.reason)
    log_rollback(world.workspace, decision, went)
    assert (went.rolled_back, went.restored, world.aliases()) == (second, first, [first, None, None])
    lines = {line.version: line for line in read_status(world.workspace).versions}
    assert (lines[second].release, lines[second].decision) == ("rolled back", "roll back")

    world.traffic(first, 0.4)
    decision = world.checked().decision
    assert (decision.outcome, decision.ids.model_version) == ("retrain", first), "there is nothing left to go back to"


def test_later_decay_starts_a_refresh(watched: Open) -> None:
    world = watched(watch={"window": 80})
    world.released(right=0.9)
    second = world.released(right=0.95, champion_right=0.9)
    world.traffic(second, 0.95)
    assert world.checked().decision.outcome == "keep"
    world.traffic(second, 0.4, batch=1)
    assert world.checked().decision.outcome == "retrain"


def test_no_rollback_to_a_previous_champion_known_to_be_worse(world: Any) -> None:
    world.released(right=0.3)
    second = world.released(right=0.95, champion_right=0.3)
    world.traffic(second, 0.4)
    assert world.checked().decision.outcome == "retrain"


def test_cooldown_and_budget_do_not_delay_a_rollback(watched: Open) -> None:
    world = watched(refresh={"cooldown_minutes": 60, "gpu_hours_per_month": 1.0})
    world.released(right=0.9)
    second = world.released(right=0.95, champion_right=0.9)
    world.refreshed("manual", 2.0)
    world.traffic(second, 0.4)
    assert world.checked().decision.outcome == "roll back"
