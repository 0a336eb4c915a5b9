"""The score without labels, estimated from the champion's confidence or, for free text, from the likelihood of its answers.

Likelihoods are turned into scores by isotonic regression on the reference, whose scores are known. Both are compared with
the newest labels: the mean of estimate minus score is the error, and the window's estimate is corrected by it, as in
prediction-powered inference (Angelopoulos et al., Science 382 (2023) 669).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from math import isnan, sqrt

import numpy as np
from scipy.stats import t, ttest_ind
from sklearn.isotonic import IsotonicRegression

from perpetune.params import WatchParams
from perpetune.policy.estimated_accuracy import EstimatedFall, EstimateError
from perpetune.policy.verdict import Interval, Score
from perpetune.records import Prediction, RecordedAnswer
from perpetune.statistics.betting import mean_bounds

TEST = "Welch t test of mean confidence"
ALPHA = 0.01  # false-alarm rate of a check if the estimate has fallen by exactly the margin
CONFIDENCE = 0.95  # of the interval of the error
LAST_LABELS, LEAST_LABELS = 200, 20  # that the error is measured on


@dataclass(frozen=True)
class ScoredRow:
    """A labelled answer with its score (0 to 1), and what it counts."""

    row: Prediction
    score: float
    weight: float = 1.0


def estimate_score(
    window: Sequence[Prediction],
    reference: Sequence[RecordedAnswer],
    labelled: Sequence[ScoredRow],
    params: WatchParams,
) -> EstimatedFall | None:
    """Estimate the window's score from confidence, or from likelihood if answers have none, with its error on labels.

    `labelled` are independent answers with labels that may judge, oldest first. None if fewer than `params.min_rows` answers
    of either side have one of the two.
    """
    by_confidence = estimate_fall((row.confidence for row in window), (row.confidence for row in reference), params)
    if by_confidence is not None:
        return replace(by_confidence, error=_error(by_confidence, labelled, lambda row: row.confidence))
    scored = [(row.likelihood, row.score) for row in reference if row.likelihood is not None]
    if len(scored) < params.min_rows:
        return None
    expected = _score_of_likelihood(scored)

    def estimated(row: Prediction | RecordedAnswer) -> float | None:
        return None if row.likelihood is None else expected(row.likelihood)

    fall = estimate_fall(map(estimated, window), map(estimated, reference), params)
    if fall is None:
        return None
    return replace(fall, method="likelihood", error=_error(fall, labelled, estimated))


def _score_of_likelihood(scored: Sequence[tuple[float, float]]) -> Callable[[float], float]:
    """The expected score of an answer of a likelihood, which never falls as the likelihood grows."""
    fitted = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(*map(list, zip(*scored, strict=True)))
    return lambda likelihood: float(fitted.predict([likelihood])[0])


def _error(
    estimate: EstimatedFall, labelled: Sequence[ScoredRow], estimated: Callable[[Prediction], float | None]
) -> EstimateError | None:
    """The weighted mean of estimate minus score on the last labels, with an interval by betting; None if there are few."""
    known = [(value, each) for each in labelled if (value := estimated(each.row)) is not None][-LAST_LABELS:]
    if len(known) < LEAST_LABELS:
        return None
    differences = np.array([value - each.score for value, each in known])
    weights = np.array([each.weight for _, each in known])
    error = float(np.average(differences, weights=weights))
    low, high = mean_bounds(differences, 1 - CONFIDENCE, weights)
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
    )


def _clipped(value: float) -> float:
    return min(max(value, 0.0), 1.0)


def estimate_fall(
    window: Iterable[float | None], reference: Iterable[float | None], params: WatchParams
) -> EstimatedFall | None:
    """Compare the mean confidence (0 to 1) of the window's answers with that of the reference.

    If confidence is calibrated, about 80% of the answers with a confidence of 0.8 are right, so the mean confidence
    estimates the accuracy: confidence-based performance estimation (CBPE, NannyML's documentation, "How it works:
    Performance Estimation"). The change of the mean is the difference of confidences of Guillory et al. ("Predicting with
    Confidence on Unseen Distributions", ICCV 2021), in which a constant calibration error cancels out.

    It assumes the same calibration on both sides. It does not see inputs on which the model is overconfident, nor
    concept drift, and the intervals do not cover these errors. Their level is 98%, so that the interval of the fall lies
    above the margin exactly if p is below 0.01.

    None if fewer than `params.min_rows` answers of either side have a confidence; free text has none.
    """
    now, then = _known(window), _known(reference)
    if min(len(now), len(then)) < max(params.min_rows, 2):
        return None
    level = 1 - 2 * ALPHA
    with warnings.catch_warnings():
        # With constant confidences scipy warns and p is 0, 1 or NaN.
        warnings.simplefilter("ignore", RuntimeWarning)
        p_value = float(ttest_ind(then - params.margin, now, equal_var=False, alternative="greater").pvalue)
        found = ttest_ind(then, now, equal_var=False).confidence_interval(level)
    fall = float(then.mean() - now.mean())
    low, high = (fall if isnan(end) else float(end) for end in (found.low, found.high))
    return EstimatedFall(
        window=_mean(now),
        reference=_mean(then),
        fall=fall,
        interval=Interval(low, high, level),
        margin=params.margin,
        p_value=1.0 if isnan(p_value) else p_value,
        test=TEST,
    )


def _known(confidences: Iterable[float | None]) -> np.ndarray:
    return np.array([confidence for confidence in confidences if confidence is not None], dtype=float)


def _mean(confidences: np.ndarray) -> Score:
    rows, mean = len(confidences), float(confidences.mean())
    half_width = float(t.ppf(1 - ALPHA, rows - 1) * confidences.std(ddof=1) / sqrt(rows))
    return Score(mean, Interval(max(mean - half_width, 0.0), min(mean + half_width, 1.0), 1 - 2 * ALPHA), rows)
