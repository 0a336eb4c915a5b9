"""How far labels that some requests have may bias the mean score of all: three bounds, each with its own evidence.

The bias is the mean score of the labelled requests minus that of all. Labels are ignorable (missing at random, Rubin,
Biometrika 1976;63:581) if it is 0. It is shown to be small by equivalence, not by the lack of a difference: both ends of
the interval at 1 - 2 x level lie within the tolerance (two one-sided tests; Schuirmann, J Pharmacokinet Biopharm
1987;15:657). Means of few or skewed scores are bounded by betting (see mean_difference), so that the level holds for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist

import numpy as np

from perpetune.statistics.estimate import Floats
from perpetune.statistics.mean_difference import LARGE, Sample, difference_bounds

SHRUNK_BY = 10.0  # labels of the mean score that are added to those of each answer
LEAST = 20  # rows on each side of a comparison, with fewer nothing is said
SKEWED = (
    25.0  # a mean of n values is about normal if n is above this times their squared skewness (Cochran 1977, page 42)
)


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
    ours, theirs = Sample(np.array(unasked, dtype=float)), Sample(scores, weights)
    return Bias(ours.mean - theirs.mean, *difference_bounds(ours, theirs, level))


def bias_by_confidence(
    labelled: Sequence[float], unlabelled: Sequence[float], known: Sequence[tuple[float, float]], level: float
) -> Bias | None:
    """The bias that explains how the confidence (0 to 1) of labelled requests differs from that of unlabelled ones.

    `known` are (confidence, score) pairs of labelled requests. If labelling depends on the score, confidence differs by
    the bias times the slope of confidence on score, which that dependence leaves as it is. None if too few are known for a
    normal approximation of that ratio, or if confidence says nothing about the score: then no difference shows nothing.
    """
    if min(len(labelled), len(unlabelled), len(known)) < LEAST or not (_is_normal(labelled) and _is_normal(unlabelled)):
        return None
    confidence, scores = np.array(known, dtype=float).T
    spread = float(((scores - scores.mean()) ** 2).sum())
    if spread < LARGE:
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
    ours = Sample(np.array([expected[answer] for answer, _ in labelled]))
    theirs = Sample(np.array([expected.get(answer, mean) for answer in unlabelled]))
    ratio = len(unlabelled) / (len(labelled) + len(unlabelled))
    low, high = difference_bounds(ours, theirs, level)
    return Bias(ratio * (ours.mean - theirs.mean), ratio * low, ratio * high)


def pooled(one: Bias, other: Bias, level: float) -> Bias:
    """Two estimates of the same bias as one, each with the inverse of its variance (both at this level).

    An interval by betting is wider than a normal one of its variance, so that it counts less.
    """
    variances = [((each.high - each.low) / 2 / NormalDist().inv_cdf(1 - level)) ** 2 for each in (one, other)]
    weights = [1 / variance for variance in variances]
    estimate = (weights[0] * one.estimate + weights[1] * other.estimate) / sum(weights)
    return _interval(estimate, 1 / sum(weights), level)


def _is_normal(values: Sequence[float]) -> bool:
    """Whether the mean of the values is about normally distributed."""
    return len(values) > SKEWED * _skewness(np.array(values, dtype=float)) ** 2


def _skewness(values: Floats) -> float:
    apart = values - values.mean()
    return 0.0 if np.ptp(values) == 0 else float((apart**3).mean() / (apart**2).mean() ** 1.5)


def _variance_of_mean(values: Sequence[float]) -> float:
    return max(float(np.var(values, ddof=1)) / len(values), _floor(len(values)))


def _floor(rows: int) -> float:
    """Of the variance of a mean of scores that are all alike, by the rule of succession."""
    rate = 1 / (rows + 2)
    return rate * (1 - rate) / rows


def _interval(estimate: float, variance: float, level: float) -> Bias:
    half = NormalDist().inv_cdf(1 - level) * sqrt(variance)
    return Bias(estimate, estimate - half, estimate + half)
