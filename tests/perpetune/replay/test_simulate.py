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
from perpetune.replay.models.model_cache import School
from perpetune.replay.models.surrogate import StandIn
from perpetune.replay.outcome import outcome
from perpetune.replay.policies.evidently_preset import EvidentlyPreset
from perpetune.replay.policies.perpetune_policy import Own
from perpetune.replay.policies.policy import Policy
from perpetune.replay.policies.scheduled import Never, Scheduled
from perpetune.replay.simulate import live

ROOT = Path(__file__).parents[3]


def school() -> School:
    return School(StandIn("classification", 7), scoring_of("classification", None))


def test_retrains_once_soon_after_the_change(turning: History, params: Params) -> None:
    lived = live(turning, Own(params), school(), params)
    found = outcome(lived, turning, params.evaluate, params.watch.min_rows)

    by_decay = [refresh for refresh in lived.refreshes if refresh.trigger == "decay"]
    assert [refresh.outcome for refresh in by_decay] == ["promote"]
    assert 0 < (by_decay[0].time - turning.changes[0]) / timedelta(days=1) < 7
    never = outcome(live(turning, Never(), school(), params), turning, params.evaluate, 50)
    assert found.score.low > never.score.high


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_decay_never_retrains_in_a_quiet_stretch(quiet: Callable[[int], History], params: Params, seed: int) -> None:
    lived = live(quiet(seed), Own(params), school(), params)
    found = outcome(lived, quiet(seed), params.evaluate, params.watch.min_rows)

    assert all(refresh.trigger == "schedule" for refresh in found.refreshes)
    assert found.detections == ()
    assert sum(piece.score.n for piece in found.pieces) == found.score.n == 2400


def test_the_raw_preset_retrains_where_inputs_moved_and_nothing_was_lost(wordier: History, params: Params) -> None:
    taught = school()

    assert live(wordier, EvidentlyPreset(params.watch, "classification"), taught, params).refreshes
    assert all(refresh.trigger == "schedule" for refresh in live(wordier, Own(params), taught, params).refreshes)


def test_the_schedule_retrains_whatever_happens(quiet: Callable[[int], History], params: Params) -> None:
    lived = live(quiet(1), Scheduled("0 3 * * 1"), school(), params)

    assert [f"{refresh.time:%A %H}" for refresh in lived.refreshes] == ["Monday 03"] * 4
    assert all(refresh.promoted for refresh in lived.refreshes)


@pytest.mark.parametrize("policy", [Never(), Scheduled("0 3 * * 1")])
def test_every_request_is_answered_once_and_in_order(turning: History, params: Params, policy: Policy) -> None:
    counted: list[int] = []
    lived = live(turning, policy, school(), params, counted.append)

    assert [marked.example.id for marked in lived.answers] == [each.example.id for each in turning.requests]
    assert sum(counted) == len(turning.requests)


def test_labels_that_come_later_are_found_out_later(turning: History, params: Params) -> None:
    late = replace(
        turning,
        requests=tuple(replace(each, known=each.known + timedelta(days=3)) for each in turning.requests),
    )
    [soon] = live(turning, Own(params), school(), params).refreshes[:1]
    [later] = live(late, Own(params), school(), params).refreshes[:1]

    # The schedule is a look too, and alarms are counted in looks.
    assert abs(later.time - soon.time - timedelta(days=3)) <= timedelta(days=1)


def test_nothing_is_learned_from_labels_that_are_not_known_yet(turning: History, params: Params) -> None:
    unknown = replace(
        turning,
        requests=tuple(replace(each, known=each.known + timedelta(days=30)) for each in turning.requests),
    )
    first, second, *_ = live(unknown, Scheduled("0 3 * * 1"), school(), params).refreshes
    _, usual, *_ = live(turning, Scheduled("0 3 * * 1"), school(), params).refreshes

    assert first.train_rows == second.train_rows < usual.train_rows


def test_too_little_to_teach_says_so(turning: History, params: Params) -> None:
    with pytest.raises(PerpetuneError, match="the first model is taught 10 rows"):
        live(replace(turning, taught=turning.taught[:10]), Never(), school(), params)


@pytest.fixture
def assets() -> Path:
    try:
        find_wheel(ROOT / "assets")
    except PerpetuneError:
        pytest.skip("the rated reviews are not in assets/: run `make setup`")
    return ROOT / "assets"


def test_on_the_real_reviews_decay_retrains_only_after_the_films_came(assets: Path) -> None:
    params, taught = load_params(ROOT / "params.yaml"), school()
    history = review_history("reviews", assets, timedelta(days=1))
    lived = live(history, Own(params), taught, params)

    by_decay = [refresh for refresh in lived.refreshes if refresh.trigger == "decay"]
    assert by_decay[-1].promoted
    assert 0 < (by_decay[0].time - history.changes[0]) / timedelta(days=1) < 14

    quiet = review_history("reviews-quiet", assets, timedelta(days=1))
    assert all(refresh.trigger == "schedule" for refresh in live(quiet, Own(params), taught, params).refreshes)
