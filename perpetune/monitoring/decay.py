"""Decay: the champion's labelled answers since the most likely change, compared with all before.

The alarm comes from a change-point detector (perpetune/statistics/sequential/change_point.py); the other numbers are for reports.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from math import hypot, sqrt
from typing import TypeVar

import numpy as np

from perpetune.monitoring.detector_state import DetectorState, early_run_length
from perpetune.params import ReferenceParams, WatchParams
from perpetune.policy.retraining import Decay
from perpetune.policy.verdict import Interval, Score
from perpetune.statistics.distributions import t_quantile
from perpetune.statistics.estimate import Estimate, interval_of_constant, wilson
from perpetune.statistics.sequential.change_point import Bucket, WeightedScore, most_likely_change
from perpetune.statistics.sequential.confidence_sequences import drifting_mean_interval

T = TypeVar("T")

CONFIDENCE = 0.95  # of the intervals in reports


def reference_rows(recent: Sequence[T], others: Sequence[T], params: ReferenceParams) -> list[T]:
    """The rows of the reference score: the recent holdout only if it has `min_recent` rows, otherwise both holdouts."""
    return [*recent] if len(recent) >= params.min_recent else [*others, *recent]


def by_cluster(scores: Iterable[tuple[str, float]]) -> list[WeightedScore]:
    """The mean score of each cluster, (cluster, score) pairs: rows of one user or session are no independent rows."""
    found: dict[str, list[float]] = defaultdict(list)
    for cluster, score in scores:
        found[cluster].append(score)
    return [WeightedScore(sum(each) / len(each)) for each in found.values()]


def measure_decay(
    window: Sequence[float], reference: Sequence[float], detector_state: DetectorState, params: WatchParams
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
    overall = drifting_mean_interval(detector_state.total, detector_state.weight, 1 - CONFIDENCE)
    change = most_likely_change(detector_state.detector, params.margin)
    before = _score_of(change.before)
    return Decay(
        window=now,
        reference=then,
        since_release=Score(overall.mean, Interval(overall.low, overall.high, CONFIDENCE), detector_state.labels),
        drop=drop,
        interval=Interval(drop - _half_width(then, now), drop + _half_width(now, then), CONFIDENCE),
        margin=change.margin,
        bound=before.mean - change.margin,
        evidence=change.evidence,
        run_length=params.run_length,
        labels_since_fall=change.since.rows,
        before=before,
        since_fall=_score_of(change.since) if change.since.rows else None,
        early=early_run_length(params),
    )


def _half_width(low_of: Score, high_of: Score) -> float:
    return hypot(low_of.mean - low_of.interval.low, high_of.interval.high - high_of.mean)


def _score_of(bucket: Bucket) -> Score:
    """The weighted mean with Wilson's interval, which is conservative for graded scores and for weights below 1."""
    found = wilson(bucket.total, bucket.weight, CONFIDENCE)
    return Score(found.value, Interval(found.low, found.high, CONFIDENCE), bucket.rows)


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
    half_width = t_quantile((1 + confidence) / 2, rows - 1) * float(graded.std(ddof=1)) / sqrt(rows)
    return Estimate(mean, max(0.0, mean - half_width), min(1.0, mean + half_width), rows)
