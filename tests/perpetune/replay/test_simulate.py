from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
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
from perpetune.replay.outcome import outcome
from perpetune.replay.policies.evidently_preset import EvidentlyPreset
from perpetune.replay.policies.perpetune_policy import PerpetunePolicy
from perpetune.replay.policies.policy import Policy
from perpetune.replay.policies.scheduled import Never, Scheduled
from perpetune.replay.simulate import simulate

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]


def cache() -> ModelCache:
    return ModelCache(Surrogate("classification", 7), scoring_of("classification", None))


def test_retrains_once_soon_after_the_change(turning: History, params: Params) -> None:
    run = simulate(turning, PerpetunePolicy(params), cache(), params)
    found = outcome(run, turning, params.evaluate, params.watch.min_rows)

    by_decay = [refresh for refresh in run.refreshes if refresh.trigger == "decay"]
    assert [refresh.outcome for refresh in by_decay] == ["promote"]
    assert 0 < (by_decay[0].time - turning.changes[0]) / timedelta(days=1) < 7
    never = outcome(simulate(turning, Never(), cache(), params), turning, params.evaluate, 50)
    assert found.score.low > never.score.high


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_decay_never_retrains_in_a_quiet_stretch(stable: Callable[[int], History], params: Params, seed: int) -> None:
    run = simulate(stable(seed), PerpetunePolicy(params), cache(), params)
    found = outcome(run, stable(seed), params.evaluate, params.watch.min_rows)

    assert all(refresh.trigger == "schedule" for refresh in found.refreshes)
    assert found.detections == ()
    assert sum(piece.score.n for piece in found.pieces) == found.score.n == 2400


def test_the_raw_preset_retrains_where_inputs_moved_and_nothing_was_lost(wordier: History, params: Params) -> None:
    taught = cache()

    assert simulate(wordier, EvidentlyPreset(params.watch, "classification"), taught, params).refreshes
    assert all(
        refresh.trigger == "schedule"
        for refresh in simulate(wordier, PerpetunePolicy(params), taught, params).refreshes
    )


def test_the_schedule_retrains_whatever_happens(stable: Callable[[int], History], params: Params) -> None:
    run = simulate(stable(1), Scheduled("0 3 * * 1"), cache(), params)

    assert [f"{refresh.time:%A %H}" for refresh in run.refreshes] == ["Monday 03"] * 4
    assert all(refresh.promoted for refresh in run.refreshes)


@pytest.mark.parametrize("policy", [Never(), Scheduled("0 3 * * 1")])
def test_every_request_is_answered_once_and_in_order(turning: History, params: Params, policy: Policy) -> None:
    counted: list[int] = []
    run = simulate(turning, policy, cache(), params, counted.append)

    assert [scored.example.id for scored in run.answers] == [each.example.id for each in turning.requests]
    assert sum(counted) == len(turning.requests)


def test_labels_that_come_later_are_found_out_later(turning: History, params: Params) -> None:
    late = replace(
        turning,
        requests=tuple(replace(each, known=each.known + timedelta(days=3)) for each in turning.requests),
    )
    [soon] = simulate(turning, PerpetunePolicy(params), cache(), params).refreshes[:1]
    [later] = simulate(late, PerpetunePolicy(params), cache(), params).refreshes[:1]

    # The schedule is a look too, and alarms are counted in looks.
    assert abs(later.time - soon.time - timedelta(days=3)) <= timedelta(days=1)


def test_nothing_is_learned_from_labels_that_are_not_known_yet(turning: History, params: Params) -> None:
    unknown = replace(
        turning,
        requests=tuple(replace(each, known=each.known + timedelta(days=30)) for each in turning.requests),
    )
    first, second, *_ = simulate(unknown, Scheduled("0 3 * * 1"), cache(), params).refreshes
    _, usual, *_ = simulate(turning, Scheduled("0 3 * * 1"), cache(), params).refreshes

    assert first.train_rows == second.train_rows < usual.train_rows


def test_too_little_to_teach_says_so(turning: History, params: Params) -> None:
    with pytest.raises(PerpetuneError, match="the first model is taught 10 rows"):
        simulate(replace(turning, taught=turning.taught[:10]), Never(), cache(), params)


@pytest.fixture
def assets() -> Path:
    try:
        find_wheel(ROOT / "assets")
    except PerpetuneError:
        pytest.skip("the rated reviews are not in assets/: run `make setup`")
    return ROOT / "assets"


def test_on_the_real_reviews_decay_retrains_only_after_the_films_came(assets: Path) -> None:
    params, taught = load_params(ROOT / "params.yaml"), cache()
    history = review_history("reviews", assets, timedelta(days=1))
    run = simulate(history, PerpetunePolicy(params), taught, params)

    by_decay = [refresh for refresh in run.refreshes if refresh.trigger == "decay"]
    assert by_decay[-1].promoted
    assert 0 < (by_decay[0].time - history.changes[0]) / timedelta(days=1) < 14

    stable = review_history("reviews-quiet", assets, timedelta(days=1))
    assert all(
        refresh.trigger == "schedule" for refresh in simulate(stable, PerpetunePolicy(params), taught, params).refreshes
    )
