"""Resampled histories of a stable period: the detector's false-alarm rate, and its delay after a drop."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import chi2

from perpetune.statistics.estimate import Estimate

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Delay:
    """The median number of labels from a drop until the alarm; None if fewer than half of the histories had one.

    `found` is the ratio of histories with an alarm within `within` labels.
    """

    drop: float
    labels: Estimate | None
    found: Estimate
    within: int


def block_bootstrap(scores: Numbers, histories: int, length: int, rng: np.random.Generator) -> Numbers:
    """Resampled histories of shape (histories, length), by a circular block bootstrap (Politis and Romano 1992).

    Blocks have about the cube root of the rows, to keep the correlation of neighbours.
    """
    run = max(1, round(len(scores) ** (1 / 3)))
    starts = rng.integers(0, len(scores), (histories, -(-length // run)))
    positions = (starts[:, :, None] + np.arange(run)) % len(scores)
    return scores[positions.reshape(histories, -1)[:, :length]]


def first_alarms(evidence: Numbers, run_length: float, every: int) -> Numbers:
    """The number of labels until the first alarm of each history; infinite without an alarm.

    `evidence` is that after each `every` labels, (histories, checks).
    """
    alarms = evidence >= run_length
    return np.where(alarms.any(axis=1), every * (alarms.argmax(axis=1) + 1.0), np.inf)


def alarm_rate(first: Numbers, length: int, confidence: float) -> tuple[float, float, float]:
    """The rate of first alarms per label, with Garwood's exact Poisson interval (1936)."""
    alarms, labels = int(np.isfinite(first).sum()), float(np.minimum(first, length).sum())
    tail = (1 - confidence) / 2
    low = float(chi2.ppf(tail, 2 * alarms)) / 2 if alarms else 0.0
    high = float(chi2.ppf(1 - tail, 2 * alarms + 2)) / 2
    return alarms / labels, low / labels, high / labels


def with_drop(scores: Numbers, drop: float, rng: np.random.Generator) -> Numbers:
    """The histories with a mean score lower by `drop`: random answers are set to 0."""
    mean = float(scores.mean())
    return np.where(rng.random(scores.shape) < min(1.0, drop / mean), 0.0, scores) if mean > 0 else scores


def median_delay(first: Numbers, confidence: float, samples: int, rng: np.random.Generator) -> Estimate | None:
    """The median with a percentile bootstrap interval; None if fewer than half had an alarm."""
    value = float(np.median(first))
    if not np.isfinite(value):
        return None
    medians = np.median(rng.choice(first, (min(samples, 500), len(first))), axis=1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(medians, [tail, 1 - tail], method="nearest")
    return Estimate(value, min(value, float(low)), max(value, float(high)), len(first))
