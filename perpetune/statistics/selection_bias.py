"""How far labels that some requests have may bias the mean score of all: three bounds, each with its own evidence.

The bias is the mean score of the labelled requests minus that of all. Labels are ignorable (missing at random, Rubin,
Biometrika 1976;63:581) if it is 0. It is shown to be small by equivalence, not by the lack of a difference: both ends of
the interval at 1 - 2 x level lie within the tolerance (two one-sided tests; Schuirmann, J Pharmacokinet Biopharm
1987;15:657).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist

import numpy as np

SHRUNK_BY = 10.0  # labels of the mean score that are added to those of each answer
LEAST = 20  # rows on each side of a comparison, without which a normal approximation says nothing


@dataclass(frozen=True)
class Bias:
    """An estimated bias of the mean score (0 to 1), with its interval."""

    estimate: float
    low: float
    high: float

    def within(self, tolerance: float) -> bool:
        return -tolerance <= self.low and self.high <= tolerance

    @property
    def shown(self) -> bool:
        """Whether it is shown not to be 0."""
        return self.low > 0 or self.high < 0


def bias_by_lot(unasked: Sequence[float], by_lot: Sequence[tuple[float, float]], level: float) -> Bias | None:
    """Scores of unasked labels minus those of labels by lot, (score, weight) pairs; None if too few are known."""
    if min(len(unasked), len(by_lot)) < LEAST:
        return None
    scores, weights = np.array(by_lot, dtype=float).T
    mean = float(np.average(scores, weights=weights))
    # Linearised variance of a ratio of sums.
    lot_variance = float((weights**2 * (scores - mean) ** 2).sum() / weights.sum() ** 2)
    return _interval(
        float(np.mean(unasked)) - mean, _variance_of_mean(unasked) + max(lot_variance, _floor(len(by_lot))), level
    )


def bias_by_confidence(
    labelled: Sequence[float], unlabelled: Sequence[float], known: Sequence[tuple[float, float]], level: float
) -> Bias | None:
    """The bias that explains how the confidence (0 to 1) of labelled requests differs from that of unlabelled ones.

    `known` are (confidence, score) pairs of labelled requests. If labelling depends on the score, confidence differs by
    the bias times the slope of confidence on score, which that dependence leaves as it is. None if too few are known, or if
    confidence says nothing about the score: then no difference shows nothing.
    """
    if min(len(labelled), len(unlabelled), len(known)) < LEAST:
        return None
    confidence, scores = np.array(known, dtype=float).T
    spread = float(((scores - scores.mean()) ** 2).sum())
    if spread == 0:
        return None
    slope = float(((scores - scores.mean()) * confidence).sum()) / spread
    residuals = confidence - confidence.mean() - slope * (scores - scores.mean())
    slope_variance = float(((scores - scores.mean()) ** 2 * residuals**2).sum()) / spread**2
    if slope <= 3 * sqrt(slope_variance):
        return None
    ratio = len(unlabelled) / (len(labelled) + len(unlabelled))  # the unlabelled ones' part of all
    between = (float(np.mean(labelled)) - float(np.mean(unlabelled))) / slope
    variance = (_variance_of_mean(labelled) + _variance_of_mean(unlabelled) + between**2 * slope_variance) / slope**2
    return _interval(ratio * between, ratio**2 * variance, level)


def bias_by_answers(labelled: Sequence[tuple[str, float]], unlabelled: Sequence[str], level: float) -> Bias | None:
    """The bias that the mix of answers explains: (answer, score) of labelled requests, and the answers of the others.

    Each answer counts with the mean score of its labels, shrunk to that of all. None if too few are known.
    """
    if min(len(labelled), len(unlabelled)) < LEAST:
        return None
    scores: dict[str, list[float]] = {}
    for answer, score in labelled:
        scores.setdefault(answer, []).append(score)
    mean = sum(score for _, score in labelled) / len(labelled)
    expected = {answer: (sum(some) + SHRUNK_BY * mean) / (len(some) + SHRUNK_BY) for answer, some in scores.items()}
    ours = [expected[answer] for answer, _ in labelled]
    theirs = [expected.get(answer, mean) for answer in unlabelled]
    ratio = len(unlabelled) / (len(labelled) + len(unlabelled))
    variance = float(np.var(ours)) / len(ours) + float(np.var(theirs)) / len(theirs)
    return _interval(ratio * (float(np.mean(ours)) - float(np.mean(theirs))), ratio**2 * variance, level)


def pooled(one: Bias, other: Bias, level: float) -> Bias:
    """Two estimates of the same bias as one, each with the inverse of its variance (both at this level)."""
    variances = [((each.high - each.low) / 2 / NormalDist().inv_cdf(1 - level)) ** 2 for each in (one, other)]
    weights = [1 / variance for variance in variances]
    estimate = (weights[0] * one.estimate + weights[1] * other.estimate) / sum(weights)
    return _interval(estimate, 1 / sum(weights), level)


def _variance_of_mean(values: Sequence[float]) -> float:
    return max(float(np.var(values, ddof=1)) / len(values), _floor(len(values)))


def _floor(rows: int) -> float:
    """Of the variance of a mean of scores that are all alike, by the rule of succession."""
    rate = 1 / (rows + 2)
    return rate * (1 - rate) / rows


def _interval(estimate: float, variance: float, level: float) -> Bias:
    half = NormalDist().inv_cdf(1 - level) * sqrt(variance)
    return Bias(estimate, estimate - half, estimate + half)
