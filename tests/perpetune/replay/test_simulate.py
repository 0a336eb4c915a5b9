from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from perpetune.curation.readers.reviews import find_wheel
from perpetune.errors import PerpetuneError
from perpetune.evaluation.scores.scoring import scoring_of
from perpetune.params import Params, load_params
from perpetune.replay.histories.history import History
from perpetune.replay.histories.reviews import review_history
from perpetune.replay.models.model_cache import ModelCache
from perpetune.replay.models.surrogate import Surrogate
from perpetune.replay.outcome import lead_of, outcome
from perpetune.replay.policies.evidently_preset import EvidentlyPreset
from perpetune.replay.policies.perpetune_policy import PerpetunePolicy
from perpetune.replay.policies.policy import Policy
from perpetune.replay.policies.scheduled import Never, Scheduled
from perpetune.replay.simulate import simulate

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]


def cache() -> ModelCache:
    return ModelCache(Surrogate("classification", 7), scoring_of("classification", None))


@pytest.fixture(scope="module")
def models() -> ModelCache:
    """Of the history that turns: what one policy trained and answered, another need not train and answer again."""
    return cache()


def patient(params: Params) -> Params:
    """One false alarm in 150,000 labels: the scores of these streams happen to fall by 6 points before the change."""
    return params.model_copy(update={"watch": params.watch.model_copy(update={"run_length": 150_000})})


def test_retrains_soon_after_the_change_and_again_when_more_of_it_is_known(
    turning: History, params: Params, models: ModelCache
) -> None:
    params = patient(params)
    run = simulate(turning, PerpetunePolicy(params), models, params)
    found = outcome(run, turning, params.evaluate, params.watch.min_rows)

    by_decay = [refresh for refresh in run.refreshes if refresh.trigger == "decay"]
    assert [refresh.outcome for refresh in by_decay] == ["promote", "promote", "reject"]
    waits = [later.labels - earlier.labels for earlier, later in pairwise(by_decay)]
    assert waits == sorted(waits) and waits[0] >= params.refresh.new_labels, (
        "each waits for more labels than the one before"
    )
    assert 0 < (by_decay[0].time - turning.changes[0]) / timedelta(days=1) < 7
    never = outcome(simulate(turning, Never(), models, params), turning, params.evaluate, 50)
    assert found.score.low > never.score.high


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_decay_never_retrains_in_a_stable_period(stable: Callable[[int], History], params: Params, seed: int) -> None:
    run = simulate(stable(seed), PerpetunePolicy(params), cache(), params)
    found = outcome(run, stable(seed), params.evaluate, params.watch.min_rows)

    assert all(refresh.trigger == "schedule" for refresh in found.refreshes)
    assert found.detections == ()
    assert sum(segment.score.n for segment in found.segments) == found.score.n == 2400


def test_the_preset_retrains_on_drift_without_decay(wordier: History, params: Params) -> None:
    initial, params = cache(), patient(params)

    assert simulate(wordier, EvidentlyPreset(params.watch, "classification"), initial, params).refreshes
    assert all(
        refresh.trigger == "schedule"
        for refresh in simulate(wordier, PerpetunePolicy(params), initial, params).refreshes
    )


def test_the_lead_of_a_policy_is_over_the_same_requests_and_no_refresh_comes_after_the_last(
    turning: History, params: Params, models: ModelCache
) -> None:
    params = patient(params)
    ours, never = (simulate(turning, policy, models, params) for policy in (PerpetunePolicy(params), Never()))
    lead = lead_of(ours, never, params.evaluate)
    scores = [sum(answer.score for answer in run.answers) for run in (ours, never)]
    assert lead.difference == pytest.approx((scores[0] - scores[1]) / len(ours.answers))
    assert 0 < lead.low < lead.difference < lead.high
    assert lead_of(never, never, params.evaluate).difference == 0
    early = replace(turning, requests=turning.requests[:500])
    often = simulate(early, Scheduled("0 0 * * *"), models, params)
    assert max(refresh.time for refresh in often.refreshes) <= early.requests[-1].time


def test_the_schedule_retrains_whatever_happens(stable: Callable[[int], History], params: Params) -> None:
    run = simulate(stable(1), Scheduled("0 3 * * 1"), cache(), params)

    assert [f"{refresh.time:%A %H}" for refresh in run.refreshes] == ["Monday 03"] * 4
    assert all(refresh.promoted for refresh in run.refreshes)


@pytest.mark.parametrize("policy", [Never(), Scheduled("0 3 * * 1")])
def test_every_request_is_answered_once_and_in_order(
    turning: History, params: Params, policy: Policy, models: ModelCache
) -> None:
    counted: list[int] = []
    run = simulate(turning, policy, models, params, counted.append)

    assert [scored.example.id for scored in run.answers] == [each.example.id for each in turning.requests]
    assert sum(counted) == len(turning.requests)


def test_later_labels_delay_the_detection(turning: History, params: Params, models: ModelCache) -> None:
    late = replace(
        turning,
        requests=tuple(replace(each, label_time=each.label_time + timedelta(days=3)) for each in turning.requests),
    )
    [soon] = simulate(turning, PerpetunePolicy(params), models, params).refreshes[:1]
    [later] = simulate(late, PerpetunePolicy(params), models, params).refreshes[:1]

    # A scheduled refresh is a check too, and alarms are counted in checks.
    assert abs(later.time - soon.time - timedelta(days=3)) <= timedelta(days=1)


def test_unknown_labels_are_not_used(turning: History, params: Params, models: ModelCache) -> None:
    unknown = replace(
        turning,
        requests=tuple(replace(each, label_time=each.label_time + timedelta(days=30)) for each in turning.requests),
    )
    first, second, *_ = simulate(unknown, Scheduled("0 3 * * 1"), models, params).refreshes
    _, usual, *_ = simulate(turning, Scheduled("0 3 * * 1"), models, params).refreshes

    assert first.train_rows == second.train_rows < usual.train_rows


def test_too_few_initial_examples_are_an_error(turning: History, params: Params) -> None:
    with pytest.raises(PerpetuneError, match="10 examples for the first model are too few"):
        simulate(replace(turning, initial=turning.initial[:10]), Never(), cache(), params)


@pytest.fixture
def assets() -> Path:
    try:
        find_wheel(ROOT / "assets")
    except PerpetuneError:
        pytest.skip("the rated reviews are not in assets/: run `make setup`")
    return ROOT / "assets"


def test_on_the_real_reviews_decay_retrains_only_after_the_films_came(assets: Path) -> None:
    params, initial = load_params(ROOT / "params.yaml"), cache()
    history = review_history("reviews", assets, timedelta(days=1))
    run = simulate(history, PerpetunePolicy(params), initial, params)

    by_decay = [refresh for refresh in run.refreshes if refresh.trigger == "decay"]
    assert by_decay[-1].promoted
    assert 0 < (by_decay[0].time - history.changes[0]) / timedelta(days=1) < 14

    stable = review_history("reviews-stable", assets, timedelta(days=1))
    assert all(
        refresh.trigger == "schedule"
        for refresh in simulate(stable, PerpetunePolicy(params), initial, params).refreshes
    )
