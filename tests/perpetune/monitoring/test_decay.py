from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from perpetune.monitoring.decay import decay_threshold, measure_decay
from perpetune.monitoring.detector_state import DetectorState, update_state
from perpetune.params import load_params
from perpetune.statistics.e_detector import new_detector

MONITOR = load_params(Path("params.yaml")).watch
NEW = DetectorState(new_detector(0.8))
SCORES = st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=60) | st.lists(
    st.floats(0, 1), min_size=1, max_size=60
)


def answers(right: int, rows: int) -> list[float]:
    return [1.0] * right + [0.0] * (rows - right)


def test_no_scores_no_decay() -> None:
    assert measure_decay([], answers(9, 10), NEW, MONITOR) is None
    assert measure_decay(answers(9, 10), [], NEW, MONITOR) is None
    assert decay_threshold([], MONITOR) is None


def test_the_bound_is_wilsons_for_right_or_wrong_answers() -> None:
    """The share at which 540 of 600 would be just as far above as 90% confidence allows."""
    bound = decay_threshold(answers(540, 600), MONITOR)
    assert bound is not None
    low = bound + MONITOR.margin
    assert (0.9 - low) / math.sqrt(low * (1 - low) / 600) == pytest.approx(norm.ppf(0.9), rel=1e-6)


def test_all_right_is_not_held_to_all_right() -> None:
    z2 = float(norm.ppf(0.9)) ** 2
    bound = decay_threshold(answers(100, 100), MONITOR)
    assert bound == pytest.approx(100 / (100 + z2) - MONITOR.margin)
    graded = decay_threshold([0.7] * 100, MONITOR)
    assert graded is not None
    assert graded < 0.7 - MONITOR.margin
    single = decay_threshold([0.9], MONITOR)
    assert single is not None
    assert single < 0.6


@settings(deadline=None)
@given(SCORES)
def test_the_threshold_is_below_the_reference_and_at_least_0(promised: list[float]) -> None:
    bound = decay_threshold(promised, MONITOR)
    assert bound is not None
    assert 0 <= bound <= max(float(np.mean(promised)) - MONITOR.margin, 0) + 1e-9


@pytest.mark.parametrize("graded", [False, True])
def test_the_bound_is_missed_as_seldom_as_is_stated(graded: bool) -> None:
    random, times, rows = np.random.default_rng(0), 1000, 200
    samples = random.beta(6, 2, (times, rows)) if graded else (random.random((times, rows)) < 0.75).astype(float)
    missed = [(decay_threshold(sample.tolist(), MONITOR) or 0) + MONITOR.margin > 0.75 for sample in samples]
    allowed = 1 - MONITOR.reference_confidence
    assert abs(np.mean(missed) - allowed) < 4 * math.sqrt(allowed * (1 - allowed) / times)


def test_a_decay_has_its_scores_intervals_and_rows() -> None:
    detector_state = update_state(update_state(NEW, answers(285, 300), 300, MONITOR), answers(50, 100), 400, MONITOR)
    decay = measure_decay(answers(50, 100), answers(540, 600), detector_state, MONITOR)
    assert decay is not None
    assert (decay.window.mean, decay.window.rows) == (0.5, 100)
    assert (decay.window.interval.low, decay.window.interval.high) == pytest.approx((0.4038, 0.5962), abs=1e-4)
    assert (decay.reference.mean, decay.reference.rows) == (0.9, 600)
    assert (decay.since_release.mean, decay.since_release.rows) == (335 / 400, 400)
    assert 0.75 < decay.since_release.interval.low < 335 / 400 < decay.since_release.interval.high < 0.95
    assert decay.drop == pytest.approx(0.4)
    assert 0.28 < decay.interval.low < 0.32 < 0.48 < decay.interval.high < 0.52
    assert (decay.bound, decay.run_length) == (0.8, 10_000)
    assert decay.alarms


def test_the_interval_of_the_drop_covers_it() -> None:
    random, missed = np.random.default_rng(1), 0
    for _ in range(400):
        now, then = (random.random(100) < 0.6).astype(float), (random.random(300) < 0.9).astype(float)
        decay = measure_decay(now.tolist(), then.tolist(), NEW, MONITOR)
        assert decay is not None
        missed += not decay.interval.low <= 0.3 <= decay.interval.high
    assert missed / 400 < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 400)


@settings(deadline=None, max_examples=50)
@given(SCORES, SCORES)
def test_every_interval_holds_its_number(scores: list[float], promised: list[float]) -> None:
    decay = measure_decay(scores, promised, update_state(NEW, scores, 1, MONITOR), MONITOR)
    assert decay is not None
    for value, interval in (
        (decay.drop, decay.interval),
        *((score.mean, score.interval) for score in (decay.window, decay.reference, decay.since_release)),
    ):
        assert interval.low - 1e-9 <= value <= interval.high + 1e-9


def test_nothing_falls_below_a_bound_of_0() -> None:
    detector_state = update_state(DetectorState(new_detector(0.0)), [0.0] * 20_000, 20_000, MONITOR)
    decay = measure_decay([0.0] * 50, answers(1, 60), detector_state, MONITOR)
    assert decay is not None
    assert decay.evidence >= decay.run_length
    assert not decay.alarms
