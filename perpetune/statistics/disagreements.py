"""Comparison of two systems from the labels of rows on which their answers differ.

Where both give the same answer the difference of their scores is known to be 0. So the mean difference is the ratio of
rows that are answered differently, which needs no labels, times the mean difference on those, a few of which are drawn by
lot and labelled (after Sawade, Landwehr & Scheffer, Active comparison of prediction models, NeurIPS 2012).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from perpetune.statistics.distributions import beta_quantile, sign_test
from perpetune.statistics.paired import PairedComparison
from perpetune.statistics.sequential.betting import mean_bounds, p_value_above

LEAST_LABELS = 20  # of scores of 0 and 1: with fewer the score test is not trusted, and betting takes its place
FOR_RATIO = 0.2  # part of an interval's error that is spent on the ratio of differing rows, if betting bounds the rest
STEPS = 60  # of the bisection for an end of the interval
METHOD = "labels of disagreements drawn by lot"


@dataclass(frozen=True)
class Disagreements:
    """Both systems' answers to `rows` rows, of which `differing` are answered differently.

    `differences` are b - a (-1 to 1) of the labelled ones among those, a random sample of them; any may be 0.
    """

    rows: int
    differing: int
    differences: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """The ratio of rows that are answered differently; 0 without rows."""
        return self.differing / self.rows if self.rows else 0.0

    def with_rows_of(self, other: Disagreements) -> Disagreements:
        """Both samples as one, if they are of the same population."""
        return Disagreements(
            self.rows + other.rows, self.differing + other.differing, (*self.differences, *other.differences)
        )


def compare_disagreements(found: Disagreements, confidence: float) -> PairedComparison:
    """The mean of b - a over all rows, with its interval.

    The p-values are those of the labelled disagreements alone, because the mean is above 0 exactly if theirs is: the
    exact sign test for scores of 0 and 1, else by betting. The interval for scores of 0 and 1 inverts a score test
    (`_score`); otherwise it is by betting on all rows if all that differ are labelled, else the product of an interval of the
    ratio (Clopper & Pearson 1934) and one by betting, that hold together (Bonferroni). Raises ValueError without rows.
    """
    if not found.rows:
        raise ValueError("there are no rows to compare")
    differences = np.sort(np.asarray(found.differences, dtype=np.float64))
    better, worse = int((differences > 0).sum()), int((differences < 0).sum())
    is_binary = bool(np.isin(differences, (-1.0, 0.0, 1.0)).all())
    greater, less = (_p_value(sign * differences, is_binary) for sign in (1, -1))
    mean = float(differences.mean()) if differences.size else 0.0
    low, high = (
        _score_interval(found, better, worse, confidence)
        if is_binary and len(differences) >= min(LEAST_LABELS, max(found.differing, 1))
        else _product_interval(found, confidence)
    )
    return PairedComparison(
        difference=found.ratio * mean,
        low=min(low, found.ratio * mean),
        high=max(high, found.ratio * mean),
        p_value=greater,
        p_two_sided=min(1.0, 2 * min(greater, less)),
        n=found.rows,
        better=better,
        worse=worse,
        discordance=found.ratio * (float(np.mean(differences**2)) if differences.size else 1.0),
        method=METHOD,
    )


def gain_labels(ratio: float, gain: float, *, alpha: float, power: float) -> int | None:
    """The labels of disagreements that show a true gain with this `power`; None if they would not: it exceeds `ratio`.

    The sample size of a sign test (Connor, Biometrics 43 (1987) 207) if the gain is spread over the differing rows.
    """
    if ratio < gain:
        return None
    effect = gain / ratio
    root = _z(1 - alpha) + _z(power) * math.sqrt(1 - effect**2)
    return math.ceil((root / effect) ** 2 + 1 / effect)


def guard_labels(rows: int, ratio: float, margin: float, *, alpha: float, power: float) -> int | None:
    """The labels of disagreements that show equal systems to be within the margin with this `power`.

    0 if so few rows differ that no label is needed; None if these rows are too few for any number of labels.
    """
    if upper_ratio(round(ratio * rows), rows, alpha) < margin:
        return 0
    critical, reached = _z(1 - alpha), _z(power)
    for labels in range(LEAST_LABELS, max(round(ratio * rows), LEAST_LABELS) + 1):
        null = math.sqrt(_variance(ratio, rows, labels, -margin, max(1.0, margin / ratio)))
        true = ratio / math.sqrt(labels)
        if (margin - critical * null) / true >= reached:
            return labels
    return None


def upper_ratio(differing: int, rows: int, alpha: float) -> float:
    """Clopper and Pearson's upper bound of the ratio of differing rows (Biometrika 26 (1934) 404)."""
    return 1.0 if differing >= rows else beta_quantile(1 - alpha, differing + 1, rows - differing)


def _z(probability: float) -> float:
    return NormalDist().inv_cdf(probability)  # a hundredth of the time of SciPy's for one number


def _p_value(differences: np.ndarray[tuple[int], np.dtype[np.float64]], is_binary: bool) -> float:
    """One-sided, for "the mean is above 0"."""
    if not differences.any():
        return 1.0
    if not is_binary:
        return p_value_above(differences, 0.0)
    up, down = int((differences > 0).sum()), int((differences < 0).sum())
    return sign_test(up, up + down)


def _score_interval(found: Disagreements, better: int, worse: int, confidence: float) -> tuple[float, float]:
    alpha = (1 - confidence) / 2
    most = upper_ratio(found.differing, found.rows, alpha)
    if not found.differing:
        return -most, most
    return (
        max(-most, _lower_end(found, better, worse, alpha)),
        min(most, -_lower_end(found, worse, better, alpha)),
    )


def _lower_end(found: Disagreements, better: int, worse: int, alpha: float) -> float:
    """The smallest mean difference that the score test does not reject, by bisection."""
    critical, labels = _z(1 - alpha), len(found.differences)
    rejected, kept = -found.ratio, found.ratio * (better - worse) / labels
    if _score(found, better, worse, rejected * (1 - 1e-9)) < critical:
        return -1.0
    for _ in range(STEPS):
        middle = (rejected + kept) / 2
        if _score(found, better, worse, middle) >= critical:
            rejected = middle
        else:
            kept = middle
    return rejected


def _score(found: Disagreements, better: int, worse: int, true: float) -> float:
    """The standardised difference if the mean over all rows is `true`, with the most likely ratio of ties (Tango 1998).

    The variance has two parts: that of the labelled differences and that of the ratio of differing rows.
    """
    labels, shift = len(found.differences), true / found.ratio
    linear = -better - worse + (2 * labels - better + worse) * shift
    root = math.sqrt(max(0.0, linear**2 + 8 * labels * worse * shift * (1 - shift)))
    down = (root - linear) / (4 * labels)
    discordant = min(1.0, max(2 * down + shift, abs(shift)))
    variance = _variance(found.ratio, found.rows, labels, true, discordant)
    estimate = found.ratio * (better - worse) / labels
    return (estimate - true) / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, estimate - true)


def _variance(ratio: float, rows: int, labels: int, true: float, discordant: float) -> float:
    """Of the estimate, if the mean is `true` and `discordant` of the differing rows are scored differently."""
    shift = true / ratio
    return ratio**2 * max(0.0, discordant - shift**2) / labels + shift**2 * ratio * (1 - ratio) / rows


def _product_interval(found: Disagreements, confidence: float) -> tuple[float, float]:
    """If all differing rows are labelled, no ratio has to be bounded: the differences of all rows are known."""
    alpha = 1 - confidence
    if found.differences and len(found.differences) == found.differing:
        return mean_bounds(np.array([*found.differences, *[0.0] * (found.rows - found.differing)]), alpha)
    if not found.differences:
        most = upper_ratio(found.differing, found.rows, alpha / 2)
        return -most, most
    most = upper_ratio(found.differing, found.rows, FOR_RATIO * alpha / 2)
    low, high = mean_bounds(np.asarray(found.differences, dtype=np.float64), (1 - FOR_RATIO) * alpha)
    least = 1 - upper_ratio(found.rows - found.differing, found.rows, FOR_RATIO * alpha / 2)
    return low * (most if low < 0 else least), high * (most if high > 0 else least)
