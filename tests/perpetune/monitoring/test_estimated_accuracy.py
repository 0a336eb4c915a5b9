from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perpetune.monitoring.estimated_accuracy import ALPHA, estimate_fall
from perpetune.params import load_params

PARAMS = load_params(Path("params.yaml")).watch
CONFIDENCES = st.lists(st.floats(0, 1), min_size=PARAMS.min_rows, max_size=80)


def test_calibrated_confidence_estimates_the_accuracy() -> None:
    rng = np.random.default_rng(1)
    confidences = rng.uniform(0.5, 1, 4000)
    right = rng.random(4000) < confidences
    estimate = estimate_fall(confidences, confidences, PARAMS)
    assert estimate is not None
    assert estimate.window.mean == pytest.approx(right.mean(), abs=0.02)
    assert (estimate.fall, estimate.window.rows) == (0, 4000)
    assert estimate.p_value > 0.99


def test_a_fall_beyond_the_margin_is_found_and_one_within_it_is_not() -> None:
    rng = np.random.default_rng(2)
    before = rng.beta(18, 2, 300)
    for fall, found in ((0.15, True), (0.03, False)):
        estimate = estimate_fall(np.clip(before - fall, 0, 1), before, PARAMS)
        assert estimate is not None
        assert (estimate.p_value < ALPHA) is found


@pytest.mark.slow
def test_quiet_windows_seldom_seem_to_have_fallen() -> None:
    rng = np.random.default_rng(3)
    estimates = [estimate_fall(rng.beta(9, 1, 100) - 0.05, rng.beta(9, 1, 100), PARAMS) for _ in range(1000)]
    alarms = sum(estimate is not None and estimate.p_value < 0.01 for estimate in estimates)
    assert alarms <= 25, "a fall of exactly the margin, at a level of 1%"


def test_without_enough_confidences_there_is_no_estimate() -> None:
    enough = [0.9] * PARAMS.min_rows
    assert estimate_fall([None] * 500, enough, PARAMS) is None
    assert estimate_fall(enough[1:], enough, PARAMS) is None
    assert estimate_fall(enough, enough[1:], PARAMS) is None
    assert estimate_fall([*enough, None], enough, PARAMS) is not None


@given(window=CONFIDENCES, reference=CONFIDENCES, more=st.floats(0, 1))
def test_more_confidence_never_makes_the_fall_larger(window: list[float], reference: list[float], more: float) -> None:
    lower = estimate_fall(window, reference, PARAMS)
    higher = estimate_fall([value + (1 - value) * more for value in window], reference, PARAMS)
    assert lower is not None and higher is not None
    assert higher.fall <= lower.fall + 1e-12
    assert 0 <= higher.window.interval.low <= higher.window.interval.high <= 1


@given(window=CONFIDENCES, reference=CONFIDENCES)
def test_the_interval_says_what_the_test_says(window: list[float], reference: list[float]) -> None:
    estimate = estimate_fall(window, reference, PARAMS)
    assert estimate is not None
    if abs(estimate.interval.low - PARAMS.margin) > 1e-6:
        assert (estimate.p_value < ALPHA) is (estimate.interval.low > PARAMS.margin)
