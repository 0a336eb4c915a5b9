from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perpetune.monitoring.decay import by_cluster, measure_decay
from perpetune.monitoring.detector_state import DetectorState, new_state, update_state
from perpetune.params import load_params
from perpetune.statistics.sequential.change_point import WeightedScore

MONITOR = load_params(Path("params.yaml")).watch
SCORES = st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=60) | st.lists(
    st.floats(0, 1), min_size=1, max_size=60
)


def answers(right: int, rows: int) -> list[float]:
    return [1.0] * right + [0.0] * (rows - right)


def scored(scores: list[float]) -> list[WeightedScore]:
    return [WeightedScore(score) for score in scores]


def state_after(reference: list[float], *batches: list[float]) -> DetectorState:
    found, number = new_state(scored(reference)), 0
    for batch in batches:
        number += len(batch)
        found = update_state(found, scored(batch), number, MONITOR)
    return found


def test_no_scores_no_decay() -> None:
    assert measure_decay([], answers(9, 10), state_after(answers(9, 10)), MONITOR) is None
    assert measure_decay(answers(9, 10), [], state_after([]), MONITOR) is None


def test_a_decay_has_its_scores_intervals_and_rows() -> None:
    reference, stable, fallen = answers(540, 600), [1.0, *[1.0] * 18, 0.0] * 15, [0.0, 1.0] * 50
    decay = measure_decay(fallen, reference, state_after(reference, stable, fallen), MONITOR)
    assert decay is not None
    assert (decay.window.mean, decay.window.rows) == (0.5, 100)
    assert (decay.window.interval.low, decay.window.interval.high) == pytest.approx((0.4038, 0.5962), abs=1e-4)
    assert (decay.reference.mean, decay.reference.rows) == (0.9, 600)
    assert (decay.since_release.mean, decay.since_release.rows) == (335 / 400, 400)
    assert 0.75 < decay.since_release.interval.low < 335 / 400 < decay.since_release.interval.high < 0.95
    assert decay.drop == pytest.approx(0.4)
    assert 0.28 < decay.interval.low < 0.32 < 0.48 < decay.interval.high < 0.52
    assert decay.before is not None
    assert decay.since_fall is not None
    assert 90 <= decay.labels_since_fall <= 110
    assert decay.before.rows + decay.since_fall.rows == 1000
    assert decay.before.mean == pytest.approx(0.917, abs=0.01)
    assert decay.bound == pytest.approx(decay.before.mean - 0.05)
    assert (decay.run_length, decay.early) == (MONITOR.run_length, 1500)
    assert decay.alarms
    assert not decay.is_early


def test_without_a_visible_fall_everything_is_before() -> None:
    reference = answers(90, 100)
    decay = measure_decay([1.0] * 50, reference, state_after(reference, [1.0] * 50), MONITOR)
    assert decay is not None
    assert (decay.evidence, decay.labels_since_fall, decay.since_fall) == (0.0, 0, None)
    assert decay.before is not None
    assert (decay.before.mean, decay.before.rows) == (140 / 150, 150)


def test_the_interval_of_the_drop_covers_it() -> None:
    random, missed = np.random.default_rng(1), 0
    for _ in range(400):
        now, then = (random.random(100) < 0.6).astype(float), (random.random(300) < 0.9).astype(float)
        decay = measure_decay(now.tolist(), then.tolist(), state_after(then.tolist()), MONITOR)
        assert decay is not None
        missed += not decay.interval.low <= 0.3 <= decay.interval.high
    assert missed / 400 < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 400)


@settings(deadline=None, max_examples=50)
@given(SCORES, SCORES)
def test_every_interval_holds_its_number(scores: list[float], promised: list[float]) -> None:
    decay = measure_decay(scores, promised, state_after(promised, scores), MONITOR)
    assert decay is not None
    parts = (decay.window, decay.reference, decay.since_release, decay.before, decay.since_fall)
    for value, interval in (
        (decay.drop, decay.interval),
        *((score.mean, score.interval) for score in parts if score is not None),
    ):
        assert interval.low - 1e-9 <= value <= interval.high + 1e-9


def test_nothing_falls_from_0() -> None:
    decay = measure_decay([0.0] * 50, [0.0] * 60, state_after([0.0] * 60, [0.0] * 2000), MONITOR)
    assert decay is not None
    assert decay.bound == 0
    assert not decay.alarms


def test_a_cluster_is_one_observation() -> None:
    assert by_cluster([("a", 1.0), ("b", 0.0), ("a", 0.0), ("a", 1.0)]) == [WeightedScore(2 / 3), WeightedScore(0.0)]
