from __future__ import annotations

import math
import random
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from perpetune.statistics.sequential.confidence_sequences import (
    drifting_mean_interval,
    mean_difference,
    mean_interval,
    paired_mean_difference,
    ratio_bounds,
    ratio_evidence,
)

ALPHA = 0.05
RATIOS = arrays(float, st.integers(0, 60), elements=st.integers(0, 64).map(lambda number: number / 64))


@pytest.mark.parametrize("chance", [0.02, 0.5, 0.95])
def test_the_truth_is_covered_at_all_of_1000_checks(chance: float) -> None:
    dice, runs = np.random.default_rng(1), 2000
    hits = (dice.random((runs, 1000)) < chance).cumsum(axis=1)
    evidence = ratio_evidence(hits, np.arange(1, 1001), chance)
    ever_missed = (evidence.max(axis=1) >= -math.log(ALPHA)).mean()
    assert ever_missed <= ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / runs)


def test_so_is_that_of_graded_scores() -> None:
    """Most answers score 0.95, and one in twenty loses much; ten checks of each of sixty streams."""
    dice, missed = np.random.default_rng(8), 0
    for _ in range(60):
        seen = np.where(dice.random(400) < 0.05, 0.1, 0.95)
        truth = 0.05 * 0.1 + 0.95 * 0.95
        found = [mean_interval(seen[:end], ALPHA) for end in range(40, 401, 40)]
        missed += any(not each.low <= truth <= each.high for each in found)
    assert missed <= 60 * ALPHA


def test_an_ordinary_interval_fails_under_repeated_checks() -> None:
    """A z-interval at the same checks misses the truth far more often."""
    dice = np.random.default_rng(2)
    count = np.arange(1, 1001)
    missed = 0
    for _ in range(300):
        mean = np.cumsum(dice.random(1000) < 0.5) / count
        missed += bool((np.abs(mean - 0.5)[20:] > 1.96 * 0.5 / np.sqrt(count[20:])).any())
    assert missed / 300 > 0.2


def test_the_bounds_have_the_probabilities_with_little_evidence_against_them() -> None:
    low, high = ratio_bounds(37, 150, ALPHA)
    for probability in np.linspace(0.01, 0.99, 99):
        rejected = float(ratio_evidence(37, 150, probability)) >= -math.log(ALPHA)
        assert rejected == (not low <= probability <= high)


@settings(deadline=None)
@given(RATIOS, st.randoms(use_true_random=False))
def test_the_order_of_observations_does_not_matter(seen: np.ndarray, dice: random.Random) -> None:
    other = np.array(dice.sample(list(seen), len(seen)))
    one, two = mean_interval(seen, ALPHA), mean_interval(other, ALPHA)
    assert (one.low, one.high) == pytest.approx((two.low, two.high))


def test_more_evidence_narrows_on_average() -> None:
    dice = np.random.default_rng(4)

    def width(count: int) -> float:
        found = [mean_interval((dice.random(count) < 0.8).astype(float), ALPHA) for _ in range(20)]
        return float(np.mean([each.high - each.low for each in found]))

    widths = [width(count) for count in (25, 100, 400, 1600)]
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < 0.1


@settings(deadline=None)
@given(RATIOS)
def test_bounds_are_shares_around_the_mean(seen: np.ndarray) -> None:
    found = mean_interval(seen, ALPHA)
    assert 0 <= found.low <= found.mean <= found.high <= 1
    assert found.n == seen.size


@settings(deadline=None)
@given(RATIOS)
def test_the_mirror_image_has_the_mirrored_bounds(seen: np.ndarray) -> None:
    found, mirrored = mean_interval(seen, ALPHA), mean_interval(1 - seen, ALPHA)
    assert mirrored.low == pytest.approx(1 - found.high, abs=0.0011)
    assert mirrored.high == pytest.approx(1 - found.low, abs=0.0011)


@settings(deadline=None)
@given(RATIOS, RATIOS)
def test_a_difference_turns_its_sign_with_the_sides(ours: np.ndarray, theirs: np.ndarray) -> None:
    one, other = mean_difference(ours, theirs, ALPHA), mean_difference(theirs, ours, ALPHA)
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low))
    assert -1 <= one.low <= one.mean <= one.high <= 1


@settings(deadline=None)
@given(RATIOS)
def test_less_risk_of_error_is_a_wider_interval(seen: np.ndarray) -> None:
    """Up to the bets, which depend on the risk too: never more than a little narrower."""
    wide, narrow = mean_interval(seen, 0.001), mean_interval(seen, 0.2)
    assert wide.high - wide.low >= narrow.high - narrow.low - 0.02


def test_real_differences_are_found() -> None:
    dice = np.random.default_rng(5)
    champion = (dice.random(4000) < 0.9).astype(float)
    worse = (dice.random(1000) < 0.6).astype(float)
    alike = (dice.random(4000) < 0.9).astype(float)
    assert mean_difference(worse, champion, ALPHA).high < -0.05
    assert mean_difference(alike, champion, ALPHA).low > -0.06
    assert mean_difference(alike, champion, ALPHA).low < 0 < mean_difference(alike, champion, ALPHA).high


def test_pairs_tell_more_than_two_streams() -> None:
    dice = np.random.default_rng(6)
    hard = dice.random(500)
    ours, theirs = (hard < 0.8).astype(float), (hard < 0.82).astype(float)
    paired, apart = paired_mean_difference(ours, theirs, ALPHA), mean_difference(ours, theirs, ALPHA)
    assert paired.mean == pytest.approx(apart.mean)
    assert paired.high - paired.low < 0.6 * (apart.high - apart.low)
    assert paired.low <= -0.02 <= paired.high


def test_what_is_no_share_is_refused() -> None:
    with pytest.raises(ValueError, match="within 0 and 1"):
        mean_interval([0.5, 1.5], ALPHA)
    with pytest.raises(ValueError, match="within 0 and 1"):
        mean_interval([math.nan], ALPHA)


def test_ten_thousand_observations_take_less_than_a_cpu_second() -> None:
    seen = np.random.default_rng(7).random(10_000)
    began = time.process_time()
    mean_interval(seen, ALPHA)
    assert time.process_time() - began < 1


@pytest.mark.parametrize("later", [0.5, 0.9])
def test_a_changing_mean_is_covered_at_all_checks(later: float) -> None:
    dice, runs, checks = np.random.default_rng(6), 300, 1000
    means = np.where(np.arange(checks) < 300, 0.9, later)
    truths = means.cumsum() / np.arange(1, checks + 1)
    missed = 0
    for _ in range(runs):
        totals = (dice.random(checks) < means).cumsum()
        seen = [drifting_mean_interval(float(total), count, ALPHA) for count, total in enumerate(totals, 1)]
        missed += any(not each.low <= truth <= each.high for each, truth in zip(seen, truths, strict=True))
    assert missed / runs <= ALPHA


def test_the_interval_of_a_mean_that_may_change_narrows() -> None:
    reaches = [drifting_mean_interval(0.9 * count, count, ALPHA) for count in (100, 400, 10_000)]
    assert [round(each.mean - each.low, 2) for each in reaches] == [0.15, 0.08, 0.02]
    assert (drifting_mean_interval(0, 0, ALPHA).low, drifting_mean_interval(0, 0, ALPHA).high) == (0, 1)
