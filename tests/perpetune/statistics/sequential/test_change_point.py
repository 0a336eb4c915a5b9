from __future__ import annotations

import math
from itertools import accumulate

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perpetune.statistics.sequential.change_point import (
    LEAST_RATIO,
    PER_SIZE,
    SCALE,
    Bucket,
    Detector,
    WeightedScore,
    effective_margin,
    evidence_paths,
    most_likely_change,
    new_detector,
    update_detector,
)

SCORES = st.lists(st.floats(0, 1), max_size=40)
WEIGHTED = st.lists(st.builds(WeightedScore, st.floats(0, 1), st.floats(0.01, 1)), max_size=40)
MARGIN = 0.05


def alike(score: float, times: int) -> list[WeightedScore]:
    return [WeightedScore(score)] * times


def drawn(mean: float, times: int, rng: np.random.Generator) -> list[WeightedScore]:
    return [WeightedScore(float(each)) for each in rng.random(times) < mean]


def right_or_wrong(mean: float, histories: int, length: int, rng: np.random.Generator) -> np.ndarray:
    return (rng.random((histories, length)) < mean).astype(float)


@pytest.mark.slow
@pytest.mark.parametrize("mean", [0.5, 0.85, 0.99])
@pytest.mark.parametrize("rows", [50, 500])
def test_false_alarms_are_at_least_a_run_length_apart_on_average(mean: float, rows: int) -> None:
    """Whatever the mean and the size of the reference, which is drawn too. A history that is silent counts as it ends."""
    run_length, histories, length = 200, 400, 1500
    rng = np.random.default_rng(1)
    references = right_or_wrong(mean, histories, rows, rng)
    alarms = evidence_paths(right_or_wrong(mean, histories, length, rng), references, MARGIN) >= run_length
    first = np.where(alarms.any(axis=1), alarms.argmax(axis=1) + 1, length)
    assert first.sum() / alarms.any(axis=1).sum() + 4 * first.std() / math.sqrt(histories) >= run_length


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "own", "most"), [(500, 0, 400), (100, 500, 400), (100, 2000, 280)])
def test_a_drop_of_10_points_is_found_within_days(rows: int, own: int, most: int) -> None:
    """The median delay, at a run length of 20,000 labels; the champion's own labels help a small reference."""
    histories, rng = 60, np.random.default_rng(2)
    before = right_or_wrong(0.85, histories, own, rng)
    scores = np.concatenate([before, right_or_wrong(0.75, histories, 800, rng)], axis=1)
    alarms = evidence_paths(scores, right_or_wrong(0.85, histories, rows, rng), MARGIN, 20)[:, own // 20 :] >= 20_000
    assert np.median(np.where(alarms.any(axis=1), alarms.argmax(axis=1), 40)) * 20 <= most


@given(WEIGHTED, WEIGHTED)
def test_updates_may_divide_the_scores_in_any_way(one: list[WeightedScore], other: list[WeightedScore]) -> None:
    empty = new_detector([])
    assert update_detector(update_detector(empty, one), other) == update_detector(empty, one + other)


@given(WEIGHTED)
def test_buckets_keep_every_score_and_few_of_a_size(scores: list[WeightedScore]) -> None:
    detector = update_detector(new_detector([]), scores)
    sizes = [each.rows for each in detector.buckets]
    assert sum(sizes) == detector.seen == len(scores)
    assert sizes == sorted(sizes, reverse=True)
    assert max((sizes.count(size) for size in sizes), default=0) <= PER_SIZE
    assert math.isclose(sum(each.weight for each in detector.buckets), sum(each.weight for each in scores))


def test_the_evidence_is_that_of_the_likelihood_ratio() -> None:
    """40 of 50 right before and 5 of 20 since, by hand."""
    detector = Detector(Bucket(50, 50.0, 40.0), (Bucket(20, 20.0, 5.0),))

    def fit(right: int, rows: int) -> float:
        return right * math.log(right / rows) + (rows - right) * math.log(1 - right / rows)

    ratio = fit(40, 50) + fit(5, 20) - fit(45, 70)
    found = most_likely_change(detector, MARGIN)
    assert ratio > LEAST_RATIO
    assert found.evidence == pytest.approx(20 * math.exp(ratio) / (SCALE * ratio))
    assert (found.before, found.since, found.margin) == (Bucket(50, 50.0, 40.0), Bucket(20, 20.0, 5.0), MARGIN)


def test_weights_below_1_count_as_fewer_labels() -> None:
    before = new_detector(alike(1.0, 50))
    whole = most_likely_change(update_detector(before, alike(0.0, 5)), MARGIN)
    halves = most_likely_change(update_detector(before, [WeightedScore(0.0, 0.5)] * 10), MARGIN)
    assert halves.evidence == pytest.approx(whole.evidence)


@pytest.mark.parametrize("stable", [0, 30, 500])
def test_the_beginning_of_a_fall_is_found(stable: int) -> None:
    found = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        detector = new_detector(drawn(0.95, 300, rng))
        detector = update_detector(detector, [*drawn(0.95, stable, rng), *drawn(0.4, 60, rng)])
        found.append(most_likely_change(detector, MARGIN).since.rows)
    assert abs(np.median(found) - 60) <= 8, "to the width of a bucket"


@given(SCORES.filter(bool), SCORES)
def test_it_goes_on_as_the_simulated_paths_do(reference: list[float], scores: list[float]) -> None:
    path = evidence_paths(np.array([[*scores, 0.5]]), np.array([reference]), MARGIN)[0]
    detector = new_detector([WeightedScore(score) for score in reference])
    found = most_likely_change(update_detector(detector, [WeightedScore(score) for score in [*scores, 0.5]]), MARGIN)
    assert found.evidence == pytest.approx(path[-1])


def test_a_drop_below_the_margin_is_no_evidence() -> None:
    detector = Detector(Bucket(10_000, 10_000.0, 9000.0), (Bucket(10_000, 10_000.0, 8600.0),))
    assert most_likely_change(detector, 0.05).evidence == 0
    assert most_likely_change(detector, 0.03).evidence > 1e6


@pytest.mark.parametrize(("mean", "margin"), [(0.85, 0.05), (0.99, 0.01), (0.06, 0.03), (1.0, 0.0), (0.0, 0.0)])
def test_near_0_and_1_the_margin_is_smaller(mean: float, margin: float) -> None:
    assert float(effective_margin(mean, 0.05)) == pytest.approx(margin)


def test_errors_that_double_at_99_percent_are_decay() -> None:
    detector = Detector(Bucket(2000, 2000.0, 1980.0), (Bucket(2000, 2000.0, 1956.0),))
    assert most_likely_change(detector, 0.05).evidence > 1000


def test_an_improvement_is_no_evidence() -> None:
    detector = update_detector(new_detector(alike(0.5, 100)), alike(1.0, 400))
    assert most_likely_change(detector, MARGIN).evidence == 0


@given(WEIGHTED)
def test_without_a_reference_there_is_nothing_to_fall_from_at_first(scores: list[WeightedScore]) -> None:
    found = most_likely_change(update_detector(new_detector([]), scores), MARGIN)
    assert found.since.rows < max(len(scores), 1)


def test_ever_so_many_wrong_answers_overflow_nothing_and_right_ones_bring_it_down_again() -> None:
    rich = Detector(Bucket(1000, 1000.0, 1000.0), (Bucket(100_000, 100_000.0, 0.0),))
    assert math.isfinite(most_likely_change(rich, MARGIN).evidence)
    alarmed = update_detector(new_detector(alike(1.0, 100)), alike(0.0, 10))
    assert most_likely_change(alarmed, MARGIN).evidence > 20_000
    assert most_likely_change(update_detector(alarmed, alike(1.0, 3000)), MARGIN).evidence < 20_000


@pytest.mark.parametrize("score", [-0.1, 1.1, math.nan, math.inf])
def test_what_is_no_score_is_refused(score: float) -> None:
    with pytest.raises(ValueError, match="within 0 and 1"):
        update_detector(new_detector([]), [WeightedScore(score)])


@pytest.mark.parametrize("weight", [0.0, -1.0, 1.01, math.nan])
def test_what_is_no_weight_is_refused(weight: float) -> None:
    with pytest.raises(ValueError, match="weights"):
        new_detector([WeightedScore(0.5, weight)])


@given(st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=60))
def test_order_before_the_reference_does_not_matter(scores: list[float]) -> None:
    reference = [WeightedScore(score) for score in scores]
    for one, other in zip(new_detector(reference).reference, new_detector(reference[::-1]).reference, strict=True):
        assert one == pytest.approx(other)
    assert list(accumulate(scores))[-1] == new_detector(reference).reference.total
