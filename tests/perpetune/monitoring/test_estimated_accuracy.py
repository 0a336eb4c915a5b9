from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perpetune.monitoring.estimated_accuracy import ALPHA, ScoredRow, estimate_fall, estimate_score
from perpetune.params import load_params
from perpetune.records import Prediction, RecordedAnswer

PARAMS = load_params(Path("params.yaml")).watch
Floats = Sequence[float] | np.ndarray
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


def answers(likelihoods: Floats, scores: Floats) -> list[RecordedAnswer]:
    return [
        RecordedAnswer(
            id=str(place), holdout="recent", output="text", confidence=None, score=score, likelihood=likelihood
        )
        for place, (likelihood, score) in enumerate(zip(likelihoods, scores, strict=True))
    ]


def requests(prediction: Callable[..., Prediction], likelihoods: Floats) -> list[Prediction]:
    return [prediction(place, confidence=None, likelihood=value) for place, value in enumerate(likelihoods)]


def test_likelihood_estimates_the_score_of_free_text(prediction: Callable[..., Prediction]) -> None:
    rng = np.random.default_rng(1)
    then, now = rng.uniform(0.3, 1, 400), rng.uniform(0.3, 0.7, 300)
    reference = answers(then, np.clip(then**2 + rng.normal(0, 0.05, 400), 0, 1))
    found = estimate_score(requests(prediction, now), reference, [], PARAMS)
    assert found is not None and (found.method, found.error) == ("likelihood", None)
    assert found.window.mean == pytest.approx(float((now**2).mean()), abs=0.03)
    assert found.p_value < ALPHA
    assert estimate_score(requests(prediction, now), answers(then, then)[:10], [], PARAMS) is None


def test_the_error_on_labels_is_measured_and_corrected(prediction: Callable[..., Prediction]) -> None:
    """Answers on which the champion is sure and that are mostly wrong: confidence says 90 and labels 40."""
    rng = np.random.default_rng(2)
    rows = [prediction(place, confidence=0.9) for place in range(300)]
    reference = [row.model_copy(update={"confidence": 0.9}) for row in answers([0.9] * 200, [1.0] * 200)]
    labelled = [ScoredRow(row, float(rng.random() < 0.4)) for row in rows]
    found = estimate_score(rows, reference, labelled, PARAMS)
    assert found is not None and found.error is not None and found.error.labels == 200 and not found.holds
    assert found.error.interval.low < 0.5 < found.error.interval.high and found.error.error == pytest.approx(
        0.5, abs=0.1
    )
    assert found.error.corrected.mean == pytest.approx(0.4, abs=0.1)
    assert found.error.corrected.interval.low < 0.4 < found.error.corrected.interval.high
    few = estimate_score(rows, reference, labelled[:19], PARAMS)
    assert few is not None and few.error is None


def test_labels_by_doubt_measure_the_error_of_all(prediction: Callable[..., Prediction]) -> None:
    """Wrong answers are labelled three times as often and weigh a third."""
    rows = [prediction(place, confidence=0.8) for place in range(200)]
    reference = [row.model_copy(update={"confidence": 0.8}) for row in answers([0.8] * 100, [1.0] * 100)]
    labelled = [ScoredRow(row, float(place % 4 > 1), 1.0 if place % 4 > 1 else 1 / 3) for place, row in enumerate(rows)]
    found = estimate_score(rows, reference, labelled, PARAMS)
    assert found is not None and found.error is not None
    assert found.error.error == pytest.approx(0.8 - 0.75)


@pytest.mark.slow
def test_the_interval_of_the_error_covers_it_for_skewed_scores(prediction: Callable[..., Prediction]) -> None:
    """One answer in 20 is all wrong, the others right: an interval by normal approximation covers less at n = 50."""
    rng, covered = np.random.default_rng(3), 0
    rows = [prediction(place, confidence=0.95) for place in range(50)]
    reference = [row.model_copy(update={"confidence": 0.95}) for row in answers([0.95] * 60, [1.0] * 60)]
    for _ in range(300):
        labelled = [ScoredRow(row, float(rng.random() >= 0.05)) for row in rows]
        found = estimate_score(rows, reference, labelled, PARAMS)
        assert found is not None and found.error is not None
        covered += found.error.interval.low <= 0.0 <= found.error.interval.high
    assert covered >= 285 - 12
