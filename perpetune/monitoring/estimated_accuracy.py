"""The score without labels: what any estimate is made of, its calibration, and its error on the last labels.

An estimate is a function from answers to values of 0 to 1: confidence, likelihood, a judge's grade, self-consistency. All
but confidence are turned into scores by isotonic regression on the reference, whose scores are known. Each is compared
with the newest labels: the mean of estimate minus score is the error, and the window's estimate is corrected by it, as in
prediction-powered inference (Angelopoulos et al., Science 382 (2023) 669).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from sklearn.isotonic import IsotonicRegression

from perpetune.params import WatchParams
from perpetune.policy.estimated_accuracy import EstimatedFall, EstimateError, EstimateMethod
from perpetune.policy.verdict import Interval, Score
from perpetune.records import Prediction, RecordedAnswer
from perpetune.statistics.estimate import Floats
from perpetune.statistics.mean_difference import Sample, difference_bounds, mean_bounds, p_value_above
from perpetune.statistics.sequential import betting

TEST = "betting on the difference of means"
ALPHA = 0.01  # false-alarm rate of a check if the estimate has fallen by exactly the margin
LEVEL = 1 - 2 * ALPHA
CONFIDENCE = 0.95  # of the interval of the error
LAST_LABELS, LEAST_LABELS = 200, 20  # that the error is measured on


@dataclass(frozen=True)
class ScoredRow:
    """A labelled answer with its score (0 to 1), and what it counts."""

    row: Prediction
    score: float
    weight: float = 1.0


@dataclass(frozen=True)
class Estimator:
    """What scores are estimated from: a value of 0 to 1 for each answer that has one.

    `window` are the values of answers that stand for all of the window, `reference` those of reference rows with their
    scores. `value` is that of an answer, for labelled ones. `is_probability`: the value is the expected score itself.
    `unreadable` counts replies without a value.
    """

    method: EstimateMethod
    window: Sequence[float]
    reference: Sequence[tuple[float, float]]
    value: Callable[[Prediction], float | None]
    is_probability: bool = False
    unreadable: int = 0


def from_confidence(
    window: Sequence[Prediction], reference: Sequence[RecordedAnswer], *, is_probability: bool = True
) -> Estimator:
    """About 80% of the answers with a calibrated confidence of 0.8 are right, so that its mean estimates the accuracy.

    If scores are by cost it is no probability of them, and is turned into them as other values are. Confidence-based performance estimation (CBPE; NannyML's documentation, "How it works: Performance Estimation").
    """
    known = [(row.confidence, row.score) for row in reference if row.confidence is not None]
    values = _known(row.confidence for row in window)
    return Estimator("confidence", values, known, _confidence, is_probability=is_probability)


def from_likelihood(window: Sequence[Prediction], reference: Sequence[RecordedAnswer]) -> Estimator:
    """The geometric mean of the probabilities of an answer's tokens."""
    known = [(row.likelihood, row.score) for row in reference if row.likelihood is not None]
    return Estimator("likelihood", _known(row.likelihood for row in window), known, _likelihood)


def estimate_score(estimator: Estimator, labelled: Sequence[ScoredRow], params: WatchParams) -> EstimatedFall | None:
    """Estimate the window's score, with the error on labels.

    `labelled` are independent answers with labels that may judge, oldest first. None if fewer than `params.min_rows` answers
    of the window or of the reference have a value.
    """
    if min(len(estimator.window), len(estimator.reference)) < max(params.min_rows, 2):
        return None
    expected = _identity if estimator.is_probability else _calibrated(estimator.reference)
    fall = estimate_fall(
        expected(np.array(estimator.window)), expected(np.array([value for value, _ in estimator.reference])), params
    )

    def estimated(row: Prediction) -> float | None:
        value = estimator.value(row)
        return None if value is None else float(expected(np.array([value]))[0])

    error = _error(fall, labelled, estimated)
    return replace(fall, method=estimator.method, error=error, unreadable=estimator.unreadable)


def _calibrated(scored: Sequence[tuple[float, float]]) -> Callable[[Floats], Floats]:
    """The expected score of answers with a value, which never falls as the value grows."""
    fitted = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(*map(list, zip(*scored, strict=True)))
    return lambda values: np.asarray(fitted.predict(values), dtype=np.float64)


def _identity(values: Floats) -> Floats:
    return values


def _confidence(row: Prediction) -> float | None:
    return row.confidence


def _likelihood(row: Prediction) -> float | None:
    return row.likelihood


def _error(
    estimate: EstimatedFall, labelled: Sequence[ScoredRow], estimated: Callable[[Prediction], float | None]
) -> EstimateError | None:
    """The weighted mean of estimate minus score on the last labels, with an interval by betting; None if there are few."""
    known = [(value, each) for each in labelled if (value := estimated(each.row)) is not None][-LAST_LABELS:]
    if len(known) < LEAST_LABELS:
        return None
    values, scores = np.array([(value, each.score) for value, each in known]).T
    weights = np.array([each.weight for _, each in known])
    said, was = float(np.average(values, weights=weights)), float(np.average(scores, weights=weights))
    error = said - was
    low, high = betting.mean_bounds(values - scores, 1 - CONFIDENCE, weights)
    window = estimate.window
    return EstimateError(
        error,
        Interval(low, high, CONFIDENCE),
        len(known),
        Score(
            _clipped(window.mean - error),
            Interval(_clipped(window.interval.low - high), _clipped(window.interval.high - low), CONFIDENCE),
            window.rows,
        ),
        estimated=said,
        labelled=was,
    )


def _clipped(value: float) -> float:
    return min(max(value, 0.0), 1.0)


def estimate_fall(window: Floats, reference: Floats, params: WatchParams) -> EstimatedFall:
    """Compare the mean estimate (0 to 1) of the window's answers with that of the reference's.

    The change of the mean is the difference of confidences of Guillory et al. ("Predicting with Confidence on Unseen
    Distributions", ICCV 2021), in which a constant calibration error cancels out.

    It assumes the same calibration on both sides. It does not see inputs on which the model is overconfident, nor concept
    drift, and the intervals do not cover these errors. Their level is 98%, so that the interval of the fall lies above the
    margin exactly if p is below 0.01. Intervals and test are by betting if the samples are small or skewed.
    """
    now, then = Sample(window), Sample(reference)
    low, high = difference_bounds(then, now, ALPHA)
    return EstimatedFall(
        window=_mean(now),
        reference=_mean(then),
        fall=then.mean - now.mean,
        interval=Interval(low, high, LEVEL),
        margin=params.margin,
        p_value=p_value_above(then, now, params.margin),
        test=TEST,
    )


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _mean(sample: Sample) -> Score:
    return Score(sample.mean, Interval(*mean_bounds(sample, ALPHA), LEVEL), len(sample.scores))
