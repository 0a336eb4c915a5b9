"""Decay: the champion's labelled answers compared with its reference score, less a margin.

The alarm comes from an e-detector (perpetune/statistics/e_detector.py); the other numbers are for reports.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import hypot, sqrt
from typing import TypeVar

import numpy as np
from scipy.stats import t

from perpetune.monitoring.detector_state import DetectorState
from perpetune.params import ReferenceParams, WatchParams
from perpetune.policy.retraining import Decay
from perpetune.policy.verdict import Interval, Score
from perpetune.statistics.confidence_sequences import drifting_mean_interval
from perpetune.statistics.estimate import Estimate, interval_of_constant, wilson

T = TypeVar("T")

CONFIDENCE = 0.95  # of the intervals in reports


def reference_rows(recent: Sequence[T], others: Sequence[T], params: ReferenceParams) -> list[T]:
    """The rows of the reference score: the recent holdout only if it has `min_recent` rows, otherwise both holdouts."""
    return [*recent] if len(recent) >= params.min_recent else [*others, *recent]


def decay_threshold(reference: Sequence[float], params: WatchParams) -> float | None:
    """The threshold (0 to 1): a mean score below it is decay; None without reference scores.

    It is the lower confidence bound (one-sided, `reference_confidence`) of the reference score less the margin, at least
    0. A champion without decay is below it with probability at most 1 - `reference_confidence`.
    """
    if not reference:
        return None
    # A one-sided bound is the low end of a two-sided interval with twice the error.
    low = _estimate(reference, 2 * params.reference_confidence - 1).low
    return max(low - params.margin, 0.0)


def measure_decay(
    window: Sequence[float],
    reference: Sequence[float],
    detector_state: DetectorState,
    params: WatchParams,
    restarted_from: float | None = None,
) -> Decay | None:
    """Compare the champion's labelled answers with its reference; None if either side is empty.

    `window` are the scores (0 to 1) of the newest labels, `detector_state` is the state after all labels. The interval of
    the drop covers the uncertainty of both sides (MOVER; Newcombe, Statistics in Medicine 1998;17:873; Zou & Donner
    2008;27:1693).
    """
    if not window or not reference:
        return None
    now, then = _score(window), _score(reference)
    drop = then.mean - now.mean
    overall = drifting_mean_interval(detector_state.total, detector_state.labels, 1 - CONFIDENCE)
    return Decay(
        window=now,
        reference=then,
        since_release=Score(overall.mean, Interval(overall.low, overall.high, CONFIDENCE), overall.n),
        drop=drop,
        interval=Interval(drop - _half_width(then, now), drop + _half_width(now, then), CONFIDENCE),
        margin=params.margin,
        bound=detector_state.detector.bound,
        evidence=detector_state.detector.evidence,
        run_length=params.run_length,
        labels_since_fall=detector_state.detector.since_fall,
        restarted_from=restarted_from,
    )


def _half_width(low_of: Score, high_of: Score) -> float:
    return hypot(low_of.mean - low_of.interval.low, high_of.interval.high - high_of.mean)


def _score(scores: Sequence[float]) -> Score:
    found = _estimate(scores, CONFIDENCE)
    return Score(found.value, Interval(found.low, found.high, CONFIDENCE), found.n)


def _estimate(scores: Sequence[float], confidence: float) -> Estimate:
    """The mean with Wilson's interval for scores of 0 and 1, else Student's, clipped to 0 to 1."""
    if set(scores) <= {0.0, 1.0}:
        return wilson(int(sum(scores)), len(scores), confidence)
    graded = np.asarray(scores, dtype=float)
    mean, rows = float(graded.mean()), len(graded)
    if graded.min() == graded.max():
        return interval_of_constant(mean, rows, 0.0, 1.0, confidence)
    half_width = float(t.ppf((1 + confidence) / 2, rows - 1) * graded.std(ddof=1) / sqrt(rows))
    return Estimate(mean, max(0.0, mean - half_width), min(1.0, mean + half_width), rows)
