from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perpetune.statistics.e_detector import MAX_CAPITAL, evidence_paths, new_detector, update_detector

BOUND = 0.85
SCORES = st.lists(st.floats(0, 1), max_size=40)


def right_or_wrong(share: float, histories: int, length: int, seed: int) -> np.ndarray:
    return (np.random.default_rng(seed).random((histories, length)) < share).astype(float)


@pytest.mark.parametrize("run_length", [50, 200])
def test_false_alarms_are_at_least_a_run_length_apart_on_average(run_length: int) -> None:
    """At the bound itself, the worst of what is no decay. A history that is still silent counts as it ends."""
    histories, length = 1000, 8 * run_length
    paths = evidence_paths(right_or_wrong(BOUND, histories, length, seed=1), BOUND)
    rings = paths >= run_length
    first = np.where(rings.any(axis=1), rings.argmax(axis=1) + 1, length)
    reach = 3 * first.std(ddof=1) / math.sqrt(histories)
    assert first.mean() - reach >= run_length


def test_an_ordinary_test_at_every_label_would_ring_far_sooner() -> None:
    """A 5% test at every label raises a false alarm in four of ten stable histories within 2,000 labels."""
    scores = right_or_wrong(BOUND, 300, 2000, seed=2)
    count = np.arange(1, 2001)
    below = (BOUND - scores.cumsum(axis=1) / count) / np.sqrt(BOUND * (1 - BOUND) / count)
    ordinary = (below[:, 20:] > 1.645).any(axis=1).mean()
    ours = (evidence_paths(scores, BOUND) >= 10_000).any(axis=1).mean()
    assert ours < 2000 / 10_000 < 0.35 < ordinary


@pytest.mark.parametrize("graded", [False, True])
def test_at_the_bound_what_is_held_grows_by_one_a_label_at_most(graded: bool) -> None:
    """E[evidence after n] = n there. Few labels, since the few histories that hold nearly all of it must be sampled."""
    random, histories, length = np.random.default_rng(3), 200_000, 10
    size = (histories, length)
    scores = random.beta(8.5, 1.5, size) if graded else (random.random(size) < BOUND).astype(np.float64)
    found = evidence_paths(scores, BOUND)
    means, reach = found.mean(axis=0), 4 * found.std(axis=0, ddof=1) / math.sqrt(histories)
    assert (np.abs(means - np.arange(1, length + 1)) <= reach).all()


def test_above_the_bound_it_stays_small_and_below_it_rings_soon() -> None:
    good = evidence_paths(right_or_wrong(0.95, 200, 3000, seed=4), BOUND)
    assert (good >= 10_000).mean() == 0
    bad = evidence_paths(right_or_wrong(0.4, 200, 200, seed=5), BOUND)
    delay = (bad >= 10_000).argmax(axis=1) + 1
    assert (bad[:, -1] >= 10_000).all()
    assert np.median(delay) < 40


@given(SCORES, SCORES)
def test_updates_may_divide_the_scores_in_any_way(one: list[float], other: list[float]) -> None:
    assert update_detector(update_detector(new_detector(BOUND), one), other) == update_detector(
        new_detector(BOUND), one + other
    )


@given(SCORES.filter(bool))
def test_the_fall_began_when_the_richest_bettor_came_in(scores: list[float]) -> None:
    """What the one holds who came in k scores ago is what k scores leave less what k - 1 leave."""
    held = [
        np.array(update_detector(new_detector(BOUND), scores[len(scores) - k :]).held) for k in range(len(scores) + 1)
    ]
    alone = [max(more - less) for less, more in pairwise(held)]
    detector = update_detector(new_detector(BOUND), scores)
    assert max(detector.most) == pytest.approx(max(alone), rel=1e-6)
    assert alone[detector.since_fall - 1] == pytest.approx(max(alone), rel=1e-6)


@pytest.mark.parametrize("stable", [0, 30, 500])
def test_the_beginning_of_a_fall_is_found(stable: int) -> None:
    guesses = []
    for seed in range(40):
        random = np.random.default_rng(seed)
        scores = [*(random.random(stable) < 0.95), *(random.random(60) < 0.4)]
        guesses.append(update_detector(new_detector(BOUND), [float(score) for score in scores]).since_fall)
    assert abs(np.median(guesses) - 60) <= 2


@given(SCORES)
def test_it_goes_on_as_the_simulated_paths_do(scores: list[float]) -> None:
    path = evidence_paths(np.array([[*scores, 0.5]]), BOUND)[0]
    assert update_detector(new_detector(BOUND), [*scores, 0.5]).evidence == pytest.approx(path[-1])


@given(SCORES.filter(bool), st.data())
def test_a_worse_score_anywhere_never_takes_evidence_away(scores: list[float], data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(scores) - 1))
    worse = [*scores]
    worse[position] = data.draw(st.floats(0, scores[position]))
    assert update_detector(new_detector(BOUND), worse).evidence >= update_detector(new_detector(BOUND), scores).evidence


def test_ever_so_many_wrong_answers_overflow_nothing_and_right_ones_bring_it_down_again() -> None:
    rich = update_detector(new_detector(BOUND), [0.0] * 20_000)
    assert rich.evidence == MAX_CAPITAL
    assert rich.seen == 20_000
    assert update_detector(rich, [1.0] * 20_000).evidence < MAX_CAPITAL / 1e80


@pytest.mark.parametrize("score", [-0.1, 1.1, math.nan, math.inf])
def test_what_is_no_score_is_refused(score: float) -> None:
    with pytest.raises(ValueError, match="within 0 and 1"):
        update_detector(new_detector(BOUND), [0.5, score])


@pytest.mark.parametrize("bound", [-0.01, 1.01, math.nan])
def test_what_is_no_bound_is_refused(bound: float) -> None:
    with pytest.raises(ValueError, match="bound"):
        new_detector(bound)


@pytest.mark.parametrize("bound", [0.0, 1.0])
def test_there_are_no_bets_against_an_extreme_bound(bound: float) -> None:
    """Each bettor keeps the unit it came with."""
    assert update_detector(new_detector(bound), [0.0, 1.0, 0.5]).evidence == 3.0


@pytest.mark.parametrize("bound", [0.001, 0.02, 0.5, 0.98, 0.999])
def test_no_bettor_is_ever_in_debt(bound: float) -> None:
    after = update_detector(new_detector(bound), [1.0, 0.0] * 200)
    assert min(after.held) >= 0
