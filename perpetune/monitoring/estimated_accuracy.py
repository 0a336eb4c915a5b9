"""Accuracy without labels, estimated from the champion's confidence on the window and the reference."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from math import isnan, sqrt

import numpy as np
from scipy.stats import t, ttest_ind

from perpetune.params import WatchParams
from perpetune.policy.estimated_accuracy import EstimatedFall
from perpetune.policy.verdict import Interval, Score

TEST = "Welch t test of mean confidence"
ALPHA = 0.01  # false-alarm rate of a check if the estimate has fallen by exactly the margin


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
