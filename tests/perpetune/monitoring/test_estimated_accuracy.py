from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perpetune.monitoring.estimated_accuracy import (
    ALPHA,
    Estimator,
    ScoredRow,
    estimate_fall,
    estimate_score,
    from_confidence,
    from_likelihood,
)
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
    assert estimate.window.mean == pytest.approx(right.mean(), abs=0.02)
    assert (estimate.fall, estimate.window.rows) == (0, 4000)
    assert estimate.p_value > 0.99


def test_a_fall_beyond_the_margin_is_found_and_one_within_it_is_not() -> None:
    rng = np.random.default_rng(2)
    before = rng.beta(18, 2, 300)
    for fall, found in ((0.15, True), (0.03, False)):
        estimate = estimate_fall(np.clip(before - fall, 0, 1), before, PARAMS)
        assert (estimate.p_value < ALPHA) is found


@pytest.mark.slow
def test_quiet_windows_seldom_seem_to_have_fallen() -> None:
    """By exactly the margin: half of them answers of 1 but for one in 20 near 0, of which there are one in 9 now.

    Welch's t test found a fall in more than 3% of those, at a level of 1%; see test_mean_difference.py.
    """
    rng, found = np.random.default_rng(3), []
    for number in range(200):
        if number % 2:
            now, then = (rng.beta(9, 1, 100) - 0.05).clip(0, 1), rng.beta(9, 1, 100)
        else:
            then = 1 - rng.beta(5, 1, 50) * (rng.random(50) < 0.05)
            now = 1 - rng.beta(5, 1, 300) * (rng.random(300) < 0.11)
        found.append(estimate_fall(now, then, PARAMS).interval.low > PARAMS.margin)
    assert sum(found) <= 2 + 4


def test_without_enough_confidences_there_is_no_estimate(prediction: Callable[..., Prediction]) -> None:
    def estimated(rows: int, known: int, unknown: int = 0) -> bool:
        window = [prediction(place, confidence=0.9) for place in range(rows)]
        window += [prediction(rows + place, confidence=None) for place in range(unknown)]
        reference = [row.model_copy(update={"confidence": 0.9}) for row in answers([0.9] * known, [1.0] * known)]
        return estimate_score(from_confidence(window, reference), [], PARAMS) is not None

    enough = PARAMS.min_rows
    assert estimated(enough, enough, unknown=1)
    assert (
        not estimated(0, enough, unknown=500)
        and not estimated(enough - 1, enough)
        and not estimated(enough, enough - 1)
    )


@pytest.mark.slow
@settings(max_examples=30)
@given(window=CONFIDENCES, reference=CONFIDENCES, more=st.floats(0, 1))
def test_more_confidence_never_makes_the_fall_larger(window: list[float], reference: list[float], more: float) -> None:
    lower = estimate_fall(np.array(window), np.array(reference), PARAMS)
    higher = estimate_fall(np.array([value + (1 - value) * more for value in window]), np.array(reference), PARAMS)
    assert higher.fall <= lower.fall + 1e-12
    assert 0 <= higher.window.interval.low <= higher.window.interval.high <= 1


@pytest.mark.slow
@settings(max_examples=30)
@given(window=CONFIDENCES, reference=CONFIDENCES)
def test_the_interval_says_what_the_test_says(window: list[float], reference: list[float]) -> None:
    estimate = estimate_fall(np.array(window), np.array(reference), PARAMS)
    if abs(estimate.interval.low - PARAMS.margin) > 0.002:
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
    found = estimate_score(from_likelihood(requests(prediction, now), reference), [], PARAMS)
    assert found is not None and (found.method, found.error) == ("likelihood", None)
    assert found.window.mean == pytest.approx(float((now**2).mean()), abs=0.03)
    assert found.p_value < ALPHA
    assert estimate_score(from_likelihood(requests(prediction, now), answers(then, then)[:10]), [], PARAMS) is None


def test_the_error_on_labels_is_measured_and_corrected(prediction: Callable[..., Prediction]) -> None:
    """Answers on which the champion is sure and that are mostly wrong: confidence says 90 and labels 40."""
    rng = np.random.default_rng(2)
    rows = [prediction(place, confidence=0.9) for place in range(300)]
    reference = [row.model_copy(update={"confidence": 0.9}) for row in answers([0.9] * 200, [1.0] * 200)]
    labelled = [ScoredRow(row, float(rng.random() < 0.4)) for row in rows]
    found = estimate_score(from_confidence(rows, reference), labelled, PARAMS)
    assert found is not None and found.error is not None and found.error.labels == 200 and found.is_wrong
    assert found.error.interval.low < 0.5 < found.error.interval.high and found.error.error == pytest.approx(
        0.5, abs=0.1
    )
    assert found.error.corrected.mean == pytest.approx(0.4, abs=0.1)
    assert found.error.estimated == pytest.approx(0.9) and found.error.labelled == pytest.approx(0.4, abs=0.1)
    assert found.error.corrected.interval.low < 0.4 < found.error.corrected.interval.high
    few = estimate_score(from_confidence(rows, reference), labelled[:19], PARAMS)
    assert few is not None and few.error is None


def test_labels_by_doubt_measure_the_error_of_all(prediction: Callable[..., Prediction]) -> None:
    """Wrong answers are labelled three times as often and weigh a third."""
    rows = [prediction(place, confidence=0.8) for place in range(200)]
    reference = [row.model_copy(update={"confidence": 0.8}) for row in answers([0.8] * 100, [1.0] * 100)]
    labelled = [ScoredRow(row, float(place % 4 > 1), 1.0 if place % 4 > 1 else 1 / 3) for place, row in enumerate(rows)]
    found = estimate_score(from_confidence(rows, reference), labelled, PARAMS)
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
        found = estimate_score(from_confidence(rows, reference), labelled, PARAMS)
        assert found is not None and found.error is not None
        covered += found.error.interval.low <= 0.0 <= found.error.interval.high
    assert covered >= 285 - 12


def test_any_function_of_answers_is_an_estimate(prediction: Callable[..., Prediction]) -> None:
    """A judge that grades 0.9 if right and 0.8 if wrong: lenient, and calibrated on the reference all the same."""
    rows = [prediction(place, output="right" if place % 2 else "wrong") for place in range(100)]

    def grade(row: Prediction) -> float | None:
        return {"right": 0.9, "wrong": 0.8}.get(row.output)

    reference = [(0.9, 1.0)] * 80 + [(0.8, 0.0)] * 20
    lenient = Estimator("judge", [grade(row) or 0.0 for row in rows], reference, grade, unreadable=3)
    labelled = [ScoredRow(row, float(row.output == "right")) for row in rows]
    found = estimate_score(lenient, labelled, PARAMS)
    assert found is not None and (found.method, found.unreadable) == ("judge", 3)
    assert (found.window.mean, found.reference.mean) == pytest.approx((0.5, 0.8))
    assert found.error is not None and found.error.error == pytest.approx(0) and not found.is_wrong
    ungraded = [ScoredRow(prediction(place, output="no grade"), 0.0) for place in range(100, 200)]
    again = estimate_score(lenient, [*labelled, *ungraded], PARAMS)
    assert again is not None and again.error == found.error, "what has no grade has no error"
