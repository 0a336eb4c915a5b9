from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from perpetune.statistics.estimate import bootstrap_counts, bootstrap_mean, estimate_mean, interval_of_constant, wilson

QUICK = settings(max_examples=40, deadline=None)
SETTINGS: dict[str, Any] = {"confidence": 0.95, "samples": 400, "seed": 3}
scores = st.lists(st.floats(0, 1), min_size=1, max_size=40)


@pytest.mark.parametrize(
    ("successes", "n", "confidence"), [(0, 1, 0.95), (7, 9, 0.95), (50, 50, 0.9), (188, 200, 0.99)]
)
def test_wilson_equals_scipy(successes: int, n: int, confidence: float) -> None:
    known = binomtest(successes, n).proportion_ci(confidence, method="wilson")
    estimate = wilson(successes, n, confidence)
    assert (estimate.low, estimate.high) == pytest.approx((known.low, known.high), abs=1e-12)
    assert (estimate.value, estimate.n) == (successes / n, n)


@QUICK
@given(scores)
def test_an_interval_holds_its_value_and_stays_in_bounds(values: list[float]) -> None:
    estimate = estimate_mean(values, **SETTINGS)
    assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1 + 1e-12


def test_the_bootstrap_agrees_with_the_normal_interval_of_a_large_sample() -> None:
    values = np.random.default_rng(0).uniform(0, 1, 2000)
    estimate = bootstrap_mean(list(values), lowest=0, highest=1, confidence=0.95, samples=4000, seed=1)
    reach = 1.96 * values.std() / np.sqrt(len(values))
    assert (estimate.low, estimate.high) == pytest.approx((values.mean() - reach, values.mean() + reach), abs=1.5e-3)


def test_one_row_says_little() -> None:
    estimate = estimate_mean([0.5], **SETTINGS)
    assert estimate.low < 0.2
    assert estimate.high > 0.8


@pytest.mark.parametrize("successes", [0, 30])
def test_equal_rows_get_wilsons_interval(successes: int) -> None:
    alike, known = interval_of_constant(successes / 30, 30, 0, 1, 0.95), wilson(successes, 30, 0.95)
    assert (alike.low, alike.high) == pytest.approx((known.low, known.high))


def test_resampled_counts_agree_with_wilson() -> None:
    counts = np.array([940, 60])
    estimate = bootstrap_counts(counts, lambda c: c[:, 0] / c.sum(axis=1), confidence=0.95, samples=4000, seed=0)
    known = wilson(940, 1000, 0.95)
    assert estimate.value == 0.94
    assert (estimate.low, estimate.high) == pytest.approx((known.low, known.high), abs=3e-3)
