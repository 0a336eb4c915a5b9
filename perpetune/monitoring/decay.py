"""Whether the champion is worse than it was promised to be, beyond a margin: its labelled answers against a bound.

What raises the alarm is an e-detector's evidence (perpetune/statistics/e_detector.py); the other numbers are for people.
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

CONFIDENCE = 0.95  # of the intervals that are shown


def promised_by(recent: Sequence[T], others: Sequence[T], params: ReferenceParams) -> list[T]:
    """What a champion promised on unseen rows: on the recent holdout alone where that has `min_recent` rows."""
    return [*recent] if len(recent) >= params.min_recent else [*others, *recent]


def held_to(promised: Sequence[float], params: WatchParams) -> float | None:
    """The bound below which the mean score is decay; None where nothing was promised.

    The lower confidence bound (one-sided, `reference_confidence`) of the score on the rows that the champion was
    promoted with, less the margin, and not below 0. Where all it says is true, a champion that is as good as ever lies
    below it with a chance of at most 1 - `reference_confidence`.
    """
    if not promised:
        return None
    # A one-sided bound is the low end of a two-sided interval that leaves twice as much out.
    low = _estimate(promised, 2 * params.reference_confidence - 1).low
    return max(low - params.margin, 0.0)


def measure_decay(
    window: Sequence[float],
    promised: Sequence[float],
    detector_state: DetectorState,
    params: WatchParams,
    restarted_from: float | None = None,
) -> Decay | None:
    """How the champion's labelled answers stand to those that it was promoted with, as scores from 0 to 1.

    `window` are those with the newest labels, `detector_state` what all of them left. The interval of the drop takes both
    sides as uncertain (MOVER; Newcombe, Statistics in Medicine 1998;17:873; Zou & Donner 2008;27:1693). None where
    either side is empty.
    """
    if not window or not promised:
        return None
    now, then = _score(window), _score(promised)
    drop = then.mean - now.mean
    ever = drifting_mean_interval(detector_state.total, detector_state.labels, 1 - CONFIDENCE)
    return Decay(
        window=now,
        reference=then,
        since_release=Score(ever.mean, Interval(ever.low, ever.high, CONFIDENCE), ever.n),
        drop=drop,
        interval=Interval(drop - _reach(then, now), drop + _reach(now, then), CONFIDENCE),
        margin=params.margin,
        bound=detector_state.detector.bound,
        evidence=detector_state.detector.evidence,
        run_length=params.run_length,
        labels_since_fall=detector_state.detector.since_fall,
        restarted_from=restarted_from,
    )


def _reach(low_of: Score, high_of: Score) -> float:
    return hypot(low_of.mean - low_of.interval.low, high_of.interval.high - high_of.mean)


def _score(scores: Sequence[float]) -> Score:
    found = _estimate(scores, CONFIDENCE)
    return Score(found.value, Interval(found.low, found.high, CONFIDENCE), found.n)


def _estimate(scores: Sequence[float], confidence: float) -> Estimate:
    """The mean with Wilson's interval where all are right or wrong, else Student's within 0 and 1."""
    if set(scores) <= {0.0, 1.0}:
        return wilson(int(sum(scores)), len(scores), confidence)
    graded = np.asarray(scores, dtype=float)
    mean, rows = float(graded.mean()), len(graded)
    if graded.min() == graded.max():
        return interval_of_constant(mean, rows, 0.0, 1.0, confidence)
    reach = float(t.ppf((1 + confidence) / 2, rows - 1) * graded.std(ddof=1) / sqrt(rows))
    return Estimate(mean, max(0.0, mean - reach), min(1.0, mean + reach), rows)
