from __future__ import annotations

from math import log
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import norm

from perpetune.monitoring.decay import SCORE_TEST, WELCH_TEST, measure_decay
from perpetune.params import load_params

MONITOR = load_params(Path("params.yaml")).watch


def answers(right: int, rows: int) -> list[float]:
    return [1.0] * right + [0.0] * (rows - right)


def test_no_scores_no_decay():
    assert measure_decay([], answers(9, 10), MONITOR) is None
    assert measure_decay(answers(9, 10), [], MONITOR) is None


def test_scores_come_with_wilson_intervals_and_rows():
    decay = measure_decay(answers(70, 100), answers(540, 600), MONITOR)
    assert decay is not None
    assert (decay.window.mean, decay.window.rows) == (0.7, 100)
    assert decay.window.interval.low == pytest.approx(0.5854, abs=1e-4)
    assert decay.window.interval.high == pytest.approx(0.7941, abs=1e-4)
    assert decay.drop == pytest.approx(0.2)
    assert decay.test == SCORE_TEST


def likeliest(right1: int, rows1: int, right2: int, rows2: int, difference: float) -> float:
    def unlikelihood(share: float) -> float:
        return -sum(
            (right * log(p) if right else 0) + ((rows - right) * log(1 - p) if rows - right else 0)
            for right, rows, p in ((right1, rows1, share), (right2, rows2, share - difference))
        )

    low, high = max(0, difference) + 1e-12, min(1, 1 + difference) - 1e-12
    return float(minimize_scalar(unlikelihood, bounds=(low, high), method="bounded", options={"xatol": 1e-10}).x)


@pytest.mark.parametrize("counts", [(540, 600, 70, 100), (60, 60, 40, 50), (30, 60, 0, 50), (599, 600, 280, 300)])
def test_p_is_that_of_the_score_statistic_at_the_likeliest_shares(counts):
    right1, rows1, right2, rows2 = counts
    share1 = likeliest(*counts, MONITOR.margin)
    share2 = share1 - MONITOR.margin
    rows = rows1 + rows2
    variance = (share1 * (1 - share1) / rows1 + share2 * (1 - share2) / rows2) * rows / (rows - 1)
    expected = norm.sf((right1 / rows1 - right2 / rows2 - MONITOR.margin) / variance**0.5)
    decay = measure_decay(answers(right2, rows2), answers(right1, rows1), MONITOR)
    assert decay is not None
    assert decay.p_value == pytest.approx(expected, rel=1e-3)


counts = st.integers(1, 200).flatmap(lambda rows: st.tuples(st.integers(0, rows), st.just(rows)))


@settings(max_examples=100, deadline=None)
@given(counts, counts)
def test_the_interval_holds_the_drop_and_agrees_with_p(window, reference):
    decay = measure_decay(answers(*window), answers(*reference), MONITOR)
    assert decay is not None
    assert -1 <= decay.interval.low <= decay.drop + 1e-9
    assert decay.drop - 1e-9 <= decay.interval.high <= 1
    if abs(decay.p_value - MONITOR.alpha) > 1e-6:
        assert (decay.interval.low > decay.margin) == (decay.p_value < MONITOR.alpha)


@settings(max_examples=50, deadline=None)
@given(counts, counts)
def test_a_worse_window_is_never_weaker_evidence(window, reference):
    right, rows = window
    p_values = [measure_decay(answers(fewer, rows), answers(*reference), MONITOR) for fewer in (right, right // 2)]
    before, after = p_values
    assert before is not None
    assert after is not None
    assert after.p_value <= before.p_value + 1e-12


def test_a_drop_of_just_the_margin_alarms_as_often_as_stated():
    random = np.random.default_rng(0)
    looks = 1000
    right1, right2 = random.binomial(600, 0.9, looks), random.binomial(200, 0.85, looks)
    found: dict[tuple[int, int], bool] = {}
    for pair in set(zip(right1.tolist(), right2.tolist(), strict=True)):
        decay = measure_decay(answers(pair[1], 200), answers(pair[0], 600), MONITOR)
        assert decay is not None
        found[pair] = decay.p_value < MONITOR.alpha
    alarms = np.mean([found[pair] for pair in zip(right1.tolist(), right2.tolist(), strict=True)])
    assert 0.002 < alarms < 0.022


def test_graded_scores_take_welch():
    random = np.random.default_rng(0)
    then, now = random.uniform(0.7, 1, 300).tolist(), random.uniform(0.4, 0.7, 60).tolist()
    decay = measure_decay(now, then, MONITOR)
    assert decay is not None
    assert decay.test == WELCH_TEST
    assert decay.p_value < MONITOR.alpha
    assert decay.interval.low > MONITOR.margin
    still = measure_decay(then[:60], then, MONITOR)
    assert still is not None
    assert still.p_value > 0.9


@pytest.mark.parametrize(
    ("now", "then", "decayed"),
    [
        ([0.5], [0.5], False),
        ([0.5] * 60, [0.5] * 60, False),
        ([0.2] * 60, [0.8] * 60, True),
        ([0.2], [0.8] * 60, False),
    ],
)
def test_graded_scores_without_spread_or_number(now, then, decayed):
    decay = measure_decay(now, then, MONITOR)
    assert decay is not None
    assert (decay.p_value < MONITOR.alpha) == decayed
