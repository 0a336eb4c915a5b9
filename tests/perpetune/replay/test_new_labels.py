"""New labels appear in the stream: the deadlock that docs/decisions/0014 is about."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from perpetune.evaluation.scores.scoring import scoring_of
from perpetune.params import Params, load_params
from perpetune.records import Example
from perpetune.replay.histories.history import History, Request
from perpetune.replay.models.model_cache import ModelCache
from perpetune.replay.models.surrogate import Surrogate
from perpetune.replay.policies.perpetune_policy import PerpetunePolicy
from perpetune.replay.policies.policy import Policy
from perpetune.replay.policies.scheduled import Never, Scheduled
from perpetune.replay.simulate import PolicyRun, simulate

pytestmark = pytest.mark.slow

BEGINS = datetime(2024, 1, 1, tzinfo=UTC)
FILLING = ["this", "that", "which", "here", "there", "every", "some", "many", "often", "never"]
ROOT = Path(__file__).parents[3]
WORDS_OF_A_LABEL = 12
OLD, ALL = range(8), range(16)


def row(position: int, labels: range, picks: random.Random) -> Example:
    label = picks.choice(labels)
    own = [f"word{label}x{picks.randrange(WORDS_OF_A_LABEL)}" for _ in range(2)]
    said = [*picks.choices(FILLING, k=4), *own]
    picks.shuffle(said)
    return Example(
        input=f"{' '.join(said)} {position}",
        output=f"label {label}",
        id=f"r{position}",
        group=f"r{position}",
        source="t",
    )


def new_labels() -> History:
    """400 rows of 8 labels are initial; then come 250 requests with those, and 1,150 with 16; 50 a day."""
    picks = random.Random(5)
    initial = tuple(row(position, OLD, picks) for position in range(400))
    asked = [row(400 + position, OLD if position < 250 else ALL, picks) for position in range(1400)]
    times = [BEGINS + position * timedelta(days=1) / 50 for position in range(len(asked))]
    requests = tuple(
        Request(each.model_copy(update={"time": time}), time, time + timedelta(days=1))
        for each, time in zip(asked, times, strict=True)
    )
    return History("new labels", requests, (times[250],), initial)


@pytest.fixture(scope="module")
def runs() -> dict[str, PolicyRun]:
    params: Params = load_params(ROOT / "params.yaml")
    cache = ModelCache(Surrogate("classification", 7), scoring_of("classification", None))
    history = new_labels()
    policies: list[Policy] = [Never(), Scheduled(params.refresh.cron), PerpetunePolicy(params)]
    return {policy.name: simulate(history, policy, cache, params) for policy in policies}


def accuracy(run: PolicyRun) -> float:
    return sum(scored.score for scored in run.answers) / len(run.answers)


def test_the_loop_ends_within_three_points_of_the_best_without_more_refreshes(runs: dict[str, PolicyRun]) -> None:
    weekly, ours = runs["every week"], runs["perpetune"]

    assert accuracy(weekly) > accuracy(runs["never"]) + 0.1
    assert accuracy(ours) > accuracy(weekly) - 0.03
    assert len(ours.refreshes) <= len(weekly.refreshes)


def test_no_refresh_repeats_another(runs: dict[str, PolicyRun]) -> None:
    rows = [refresh.train_rows for refresh in runs["perpetune"].refreshes]

    assert len(set(rows)) == len(rows)
    assert any(refresh.promoted for refresh in runs["perpetune"].refreshes)
