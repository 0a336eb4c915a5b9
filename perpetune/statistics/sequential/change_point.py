"""Sequential detection of a mean score that drops at an unknown time, from an unknown level.

For each time at which the drop may have begun, the scores since are compared with all before: the reference and the
earlier labels. The statistic is the two-sample likelihood ratio of right and wrong answers, in nats. It is conservative
for other scores in [0, 1], because scores of 0 and 1 have the largest exponential moments of a given mean (Garivier &
Cappé, COLT 2011; Besson, Kaufmann, Maillard & Seznec, JMLR 23 (2022), the GLR test), and for weights below 1. The
uncertainty of both sides is in the statistic, so a small reference makes it slower, not wrong.

A drop that began `w` scores ago is one of about run length / w such windows between two false alarms, so it has to be
less surprising if it is longer: its threshold grows with log(run length / w). (Multiscale calibration: Dümbgen &
Spokoiny, Annals of Statistics 29 (2001); Walther & Perry, 2022. A CUSUM that knows both means gains the same.) Solved
for the run length, that is the evidence:

    evidence = w exp(ratio) / (SCALE max(ratio, 1)),

the number of scores in which a drop so surprising comes once by chance. `SCALE` is set by simulation, so that without a
change an alarm at an evidence of A comes after at least A scores on average, whatever the mean and the size of the
reference, whose randomness is included (benchmarks/decay.py). A drop smaller than the margin has no evidence.

Scores are kept in buckets of 1, 2, 4, ... scores, `PER_SIZE` of each size, newest first in detail, as in ADWIN's
exponential histogram (Bifet & Gavaldà 2007): memory grows with the logarithm of the number of scores.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import xlogy

Numbers = npt.NDArray[np.float64]

SCALE = 1.2
LEAST_RATIO = 3.0  # nats: a smaller likelihood ratio is no evidence, however long the window
MAX_EXPONENT = 230.0  # e to this is 1e100
PER_SIZE = 4  # buckets of one size


@dataclass(frozen=True)
class WeightedScore:
    """A score (0 to 1) and its weight, above 0 and at most 1."""

    score: float
    weight: float = 1.0


class Bucket(NamedTuple):
    """`rows` neighbouring scores: the sum of their weights, and the weighted sum of the scores."""

    rows: int
    weight: float
    total: float


@dataclass(frozen=True)
class Detector:
    """The reference and the scores since, oldest first; it can be stored and continued."""

    reference: Bucket
    buckets: tuple[Bucket, ...] = ()

    @property
    def seen(self) -> int:
        """The number of scores."""
        return sum(each.rows for each in self.buckets)


@dataclass(frozen=True)
class Change:
    """The most likely drop: its evidence, the scores before and since, and how many scores since.

    `evidence` is 0 if no drop by the margin is visible; then `since` is empty and `before` is everything. `margin` is the
    effective one: see `effective_margin`.
    """

    evidence: float
    before: Bucket
    since: Bucket
    margin: float


def new_detector(reference: Iterable[WeightedScore]) -> Detector:
    """The detector before any score. Raises ValueError if a score or weight is out of range."""
    return Detector(bucket_of(reference))


def bucket_of(observations: Iterable[WeightedScore]) -> Bucket:
    found = [_validated(each) for each in observations]
    return Bucket(len(found), sum(each.weight for each in found), sum(each.weight * each.score for each in found))


def update_detector(detector: Detector, observations: Iterable[WeightedScore]) -> Detector:
    """The detector after more scores, in order of arrival. Raises ValueError if a score or weight is out of range."""
    buckets = list(detector.buckets)
    for each in observations:
        buckets.append(bucket_of([each]))
        for position in _merges([bucket.rows for bucket in buckets]):
            buckets[position : position + 2] = [_joined(*buckets[position : position + 2])]
    return Detector(detector.reference, tuple(buckets))


def most_likely_change(detector: Detector, margin: float) -> Change:
    """The drop by at least the margin with the most evidence."""
    parts = [detector.reference, *detector.buckets]
    weights, totals = (
        np.array([getattr(each, name) for each in reversed(parts)], dtype=float) for name in ("weight", "total")
    )
    evidence, margins = _evidence(weights, totals, margin)
    everything = Bucket(sum(each.rows for each in parts), float(weights.sum()), float(totals.sum()))
    if not evidence.size or evidence.max() <= 0:
        return Change(0.0, everything, Bucket(0, 0.0, 0.0), _margin(everything, margin))
    newest = int(evidence.argmax()) + 1
    before, since = parts[: len(parts) - newest], parts[len(parts) - newest :]
    return Change(float(evidence.max()), _joined(*before), _joined(*since), float(margins[newest - 1]))


def evidence_without(change: Change, part: float, rows: float, margin: float) -> float:
    """The evidence of the drop that is left of the most likely one, if the mean before is lower by this part.

    `rows` is the number of rows that the mean before rests on then.
    """
    before, since = change.before, change.since
    if not since.rows:
        return 0.0
    mean = min(max(before.total / before.weight - part, 0.0), 1.0)
    found, _ = _evidence(np.array([since.weight, rows]), np.array([since.total, mean * rows]), margin)
    return float(found[0])


def evidence_paths(scores: Numbers, references: Numbers, margin: float, every: int = 1) -> Numbers:
    """The evidence after each `every` scores for simulated histories, (histories, scores / every).

    `references` are the scores of each history's reference, (histories, rows).
    """
    histories, length = scores.shape
    paths = np.empty((histories, length // every))
    rows = references.shape[1]
    counts: list[int] = []
    totals = references.sum(axis=1, keepdims=True)
    for position in range(length):
        counts.append(1)
        totals = np.concatenate([totals, scores[:, position, None]], axis=1)
        for merged in _merges(counts):
            counts[merged : merged + 2] = [counts[merged] + counts[merged + 1]]
            totals[:, merged + 1] += totals[:, merged + 2]  # column 0 is the reference
            totals = np.delete(totals, merged + 2, axis=1)
        if (position + 1) % every == 0:
            weights = np.array([rows, *counts], dtype=float)[::-1]
            paths[:, position // every] = _evidence(weights, totals[:, ::-1], margin)[0].max(axis=1)
    return paths


def effective_margin(mean: Numbers | float, margin: float) -> Numbers:
    """The margin, or less near 0 and 1: there, errors that double or right answers that halve are decay too."""
    return np.asarray(np.minimum(margin, np.minimum(1 - np.asarray(mean), np.asarray(mean) / 2)))


def _margin(bucket: Bucket, margin: float) -> float:
    return float(effective_margin(bucket.total / bucket.weight, margin)) if bucket.weight > 0 else margin


def _evidence(weights: Numbers, totals: Numbers, margin: float) -> tuple[Numbers, Numbers]:
    """The evidence for a drop between any two neighbouring parts, and the margins, both (..., parts - 1).

    `weights` (parts) and `totals` (..., parts) are of the parts, newest first.
    """
    since, right = np.cumsum(weights)[:-1], np.cumsum(totals, axis=-1)
    right, all_right = right[..., :-1], right[..., -1:]
    before, right_before = weights.sum() - since, all_right - right
    known = before > 0
    before = np.where(known, before, 1.0)
    ratio = (
        _fit(right, since)
        + _fit(right_before, before)
        - _fit(all_right, np.asarray(max(weights.sum(), np.finfo(float).tiny)))
    )
    was, now = right_before / before, right / since
    margins = effective_margin(was, margin)
    is_drop = known & (now < was) & (was - now >= margins) & (ratio >= LEAST_RATIO)
    evidence = since * np.exp(np.minimum(ratio, MAX_EXPONENT)) / (SCALE * np.maximum(ratio, 1))
    return np.where(is_drop, evidence, 0.0), margins


def _fit(right: Numbers, weight: Numbers) -> Numbers:
    """The log-likelihood of so much right of the weight, under its own mean."""
    right = np.clip(right, 0, weight)
    return np.asarray(xlogy(right, right / weight) + xlogy(weight - right, 1 - right / weight))


def _merges(counts: Sequence[int]) -> list[int]:
    """The positions at which two buckets are merged, one after the other, after a bucket of 1 has come in."""
    sizes = [*counts]
    found: list[int] = []
    size, end = 1, len(sizes)
    while True:
        start = end
        while start > 0 and sizes[start - 1] == size:
            start -= 1
        if end - start <= PER_SIZE:
            return found
        found.append(start)
        sizes[start : start + 2] = [2 * size]
        size, end = 2 * size, start + 1


def _joined(*buckets: Bucket) -> Bucket:
    return Bucket(
        sum(each.rows for each in buckets), sum(each.weight for each in buckets), sum(each.total for each in buckets)
    )


def _validated(observation: WeightedScore) -> WeightedScore:
    if not 0 <= observation.score <= 1:
        raise ValueError(f"scores must be within 0 and 1, got {observation.score}")
    if not 0 < observation.weight <= 1:
        raise ValueError(f"weights must be above 0 and at most 1, got {observation.weight}")
    return observation
