"""The difference of two means: right values, and a level that holds for few and skewed scores."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, ttest_ind

from perpetune.statistics.mean_difference import Sample, difference_bounds, mean_bounds, p_value_above

SCORES = st.lists(st.floats(0, 1), min_size=2, max_size=60).map(np.array)


def test_of_equal_scores_the_bounds_are_known_exactly() -> None:
    """All 1 in `first`: by betting at most 0.95 of the capital, 50 rows are above b if 50 log(1 + 0.95 (1 - b) / b) is enough."""
    first, second = Sample(np.ones(50)), Sample(np.zeros(50))
    low, high = difference_bounds(first, second, 0.05)
    assert high == 1.0 and 0.8 < low < 0.95
    assert difference_bounds(second, first, 0.05) == (-1.0, -low)
    assert p_value_above(first, second, low) <= 0.05 < p_value_above(first, second, low + 0.002)


def test_large_samples_have_the_normal_interval() -> None:
    rng = np.random.default_rng(1)
    first, second = Sample(rng.random(600)), Sample(rng.random(600))
    low, high = difference_bounds(first, second, 0.025)
    welch = ttest_ind(first.scores, second.scores, equal_var=False).confidence_interval(0.95)
    assert (low, high) == pytest.approx((welch.low, welch.high), abs=5e-4)
    assert p_value_above(first, second, low) == pytest.approx(0.025)


def test_a_weight_of_a_half_is_half_a_row() -> None:
    """Wrong answers drawn twice as often, each at half the weight: the mean is that of all, and so is its variance or more."""
    scores, weights = np.array([1.0] * 60 + [0.0] * 40), np.array([1.0] * 60 + [0.5] * 40)
    weighted = Sample(scores, weights)
    assert weighted.mean == pytest.approx(0.75) and weighted.variance == pytest.approx(
        (60 * 0.0625 + 40 * 0.140625) / 80**2
    )
    low, high = mean_bounds(weighted, 0.025)
    assert low < 0.75 < high and high - low < 0.35


@pytest.mark.parametrize(("rows", "ratio", "level"), [(600, 0.1, 0.01), (600, 0.1, 0.05), (400, 0.9, 0.05)])
def test_the_level_holds_for_large_skewed_samples(rows: int, ratio: float, level: float) -> None:
    """Each number of ones in the first sample with its probability; both means are the same. A normal interval
    that is not corrected is wrong in 1.5%, 5.5% and 6.5%.
    """
    second = Sample((np.arange(20_000) < ratio * 20_000).astype(float))
    wrong = np.zeros(2)
    for ones in np.flatnonzero(binom.pmf(np.arange(rows + 1), rows, ratio) > 1e-7):
        low, high = difference_bounds(Sample((np.arange(rows) < ones).astype(float)), second, level)
        wrong += binom.pmf(ones, rows, ratio) * np.array([low > 0, high < 0])
    assert wrong.max() <= 1.1 * level


def test_bounds_and_p_value_agree_for_large_skewed_samples() -> None:
    first, second = Sample((np.arange(600) < 60).astype(float)), Sample((np.arange(900) < 700).astype(float))
    low, high = difference_bounds(first, second, 0.01)
    assert p_value_above(first, second, low) == pytest.approx(0.01)
    assert p_value_above(second, first, -high) == pytest.approx(0.01)


@pytest.mark.slow
@settings(max_examples=40)
@given(first=SCORES, second=SCORES, bound=st.floats(-0.9, 0.9))
def test_the_bounds_say_what_the_test_says(first: np.ndarray, second: np.ndarray, bound: float) -> None:
    low, high = difference_bounds(Sample(first), Sample(second), 0.05)
    assert -1 <= low <= first.mean() - second.mean() + 1e-9 and first.mean() - second.mean() - 1e-9 <= high <= 1
    if abs(low - bound) > 0.003:
        assert (p_value_above(Sample(first), Sample(second), bound) < 0.05) is (low > bound)


def skewed(rng: np.random.Generator, rows: int, rare: float) -> np.ndarray:
    """Scores of 1, but for a few that lose most: a mean of about 1 - 5/6 `rare`."""
    return 1 - rng.beta(5, 1, rows) * (rng.random(rows) < rare)


@pytest.mark.slow
@pytest.mark.parametrize(("others", "by_welch"), [(50, 0.0), (300, 0.03)])
def test_the_level_holds_at_50_skewed_scores(others: int, by_welch: float) -> None:
    """One answer in 20 loses much before, one in 9 now: the fall is exactly the bound, at a level of 1%.

    Welch's t test finds more with 50 rows against 300, in three times as many as it says or more.
    """
    rng = np.random.default_rng(others)
    pairs = [(skewed(rng, 50, 0.05), skewed(rng, others, 0.11)) for _ in range(1000)]
    fall = 0.06 * 5 / 6
    found = [p_value_above(Sample(then), Sample(now), fall) for then, now in pairs]
    assert np.mean(np.array(found) < 0.01) <= 0.012
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of scores that are all alike
        welch = [ttest_ind(then - fall, now, equal_var=False, alternative="greater").pvalue for then, now in pairs]
    assert np.mean(np.array(welch) < 0.01) >= by_welch


@pytest.mark.slow
def test_a_clear_fall_is_found_in_nine_of_ten() -> None:
    rng = np.random.default_rng(4)
    then, now = rng.beta(9, 1.5, (100, 183)), rng.beta(9, 1.5, (100, 300)) - 0.12
    found = [
        p_value_above(Sample(before), Sample(after.clip(0, 1)), 0.05) for before, after in zip(then, now, strict=True)
    ]
    assert np.mean(np.array(found) < 0.01) >= 0.9
