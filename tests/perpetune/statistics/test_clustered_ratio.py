from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import t

from perpetune.statistics.clustered_ratio import clustered_ratio, difference


def ones(count: int) -> np.ndarray:
    return np.ones(count)


def test_two_batches_are_two_observations_however_many_rows_they_have() -> None:
    found = clustered_ratio(np.array([1.0, 1.0, 3.0, 3.0]), ones(4), ["a", "a", "b", "b"])

    # Residuals of the batches' sums are -2 and 2: 2/1 * 8 / 4^2 = 1.
    assert (found.value, found.variance, found.clusters) == pytest.approx((2, 1, 2))
    half = float(t.ppf(0.975, 1))  # 12.7
    estimate = found.estimate(0.95)
    assert (estimate.low, estimate.high, estimate.n) == pytest.approx((2 - half, 2 + half, 2))


def test_rows_on_their_own_give_the_t_interval_of_a_mean() -> None:
    values = np.array([1.0, 1.0, 3.0, 3.0])
    estimate = clustered_ratio(values, ones(4), range(4)).estimate(0.95)
    half = float(t.ppf(0.975, 3)) * values.std(ddof=1) / 2
    assert (estimate.low, estimate.high) == pytest.approx((2 - half, 2 + half))


def test_a_right_answer_costs_what_all_answers_cost_over_those_that_are_right() -> None:
    found = clustered_ratio(np.array([2.0, 2.0, 2.0, 2.0]), np.array([1.0, 0.0, 1.0, 1.0]), range(4))
    # Residuals: 2 - 8/3 three times and 2 once, so 4/3 * (3 * 4/9 + 4) / 9.
    assert (found.value, found.variance) == pytest.approx((8 / 3, 4 / 3 * (4 / 3 + 4) / 9))


def test_one_batch_tells_no_spread_and_equal_rows_have_none() -> None:
    one = clustered_ratio(np.array([0.1, 0.3]), ones(2), ["a", "a"]).estimate(0.95)
    assert (one.low, one.value, one.high, one.n) == (one.value, one.value, one.value, 1)
    equal = clustered_ratio(np.full(7, 0.1), ones(7), range(7)).estimate(0.95)
    assert equal.low == equal.high


def test_a_cost_is_not_below_nothing() -> None:
    assert clustered_ratio(np.array([0.0, 1.0]), ones(2), "ab").estimate(0.95, lowest=0).low == 0


def test_nothing_below_the_line_is_refused() -> None:
    with pytest.raises(ValueError, match="not positive"):
        clustered_ratio(ones(2), np.zeros(2), "ab")


def test_a_difference_adds_the_variances() -> None:
    first = clustered_ratio(np.array([1.0, 3.0, 5.0]), ones(3), "abc")
    second = clustered_ratio(np.array([1.0, 1.0, 1.0]), ones(3), "abc")
    found = difference(first, second, 0.95)
    half = float(t.ppf(0.975, 2)) * 2 / math.sqrt(3)
    assert (found.value, found.low, found.high, found.n) == pytest.approx((2, 2 - half, 2 + half, 3))


@pytest.mark.parametrize("order", [[3, 1, 0, 2], [2, 3, 1, 0]])
def test_the_order_of_rows_changes_nothing(order: list[int]) -> None:
    above, batches = np.array([0.1, 0.2, 0.3, 0.7]), np.array(["a", "a", "b", "c"])
    whole = clustered_ratio(above, ones(4), batches.tolist())
    other = clustered_ratio(above[order], ones(4), batches[order].tolist())
    assert (whole.value, whole.variance) == pytest.approx((other.value, other.variance))


def test_intervals_of_batches_cover_and_those_of_their_rows_do_not() -> None:
    """400 evaluations of 15 batches of 20 rows: a row's seconds are its batch's."""
    random = np.random.default_rng(3)
    batches = [row // 20 for row in range(300)]
    by_batch = by_row = 0
    for _ in range(400):
        seconds = np.repeat(random.gamma(20, 0.05, 15), 20)
        of_batches = clustered_ratio(seconds, ones(300), batches).estimate(0.95)
        of_rows = clustered_ratio(seconds, ones(300), range(300)).estimate(0.95)
        by_batch += of_batches.low <= 1 <= of_batches.high
        by_row += of_rows.low <= 1 <= of_rows.high
    assert by_batch >= 0.92 * 400
    assert by_row < 0.5 * 400
