"""Histories made of a quiet one, by resampling: how often the detector rings in them, and how soon after a drop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import chi2

from perpetune.statistics.e_detector import evidence_paths
from perpetune.statistics.estimate import Estimate

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Delay:
    """Labels from a drop until the alarm: the median of `histories`; None where fewer than half of them rang.

    `found` is the share that rang within `within` labels, with its interval.
    """

    drop: float
    labels: Estimate | None
    found: Estimate
    within: int


def resampled(scores: Numbers, histories: int, length: int, rng: np.random.Generator) -> Numbers:
    """Histories x length, of runs of neighbours (a circular block bootstrap, Politis and Romano 1992).

    Runs are about the cube root of the rows long, so that what hangs together with its neighbours still does.
    """
    run = max(1, round(len(scores) ** (1 / 3)))
    starts = rng.integers(0, len(scores), (histories, -(-length // run)))
    positions = (starts[:, :, None] + np.arange(run)) % len(scores)
    return scores[positions.reshape(histories, -1)[:, :length]]


def bounds_of(
    scores: Numbers, histories: int, rows: int, lower: Callable[[Numbers], Numbers], rng: np.random.Generator
) -> Numbers:
    """A bound for each history: what `lower` makes of a holdout of so many rows, drawn from the same scores."""
    return lower(rng.choice(scores, (histories, rows)))


def first_alarms(scores: Numbers, bounds: Numbers, run_length: float) -> Numbers:
    """How many labels each history had seen at its first alarm; infinite where there was none.

    Histories share a path only where they share a bound, so that bounds are rounded down to a thousandth.
    """
    found = np.full(len(scores), np.inf)
    rounded = np.floor(bounds * 1000) / 1000
    for bound in np.unique(rounded):
        mine = rounded == bound
        rings = evidence_paths(scores[mine], float(bound)) >= run_length
        found[mine] = np.where(rings.any(axis=1), rings.argmax(axis=1) + 1, np.inf)
    return found


def alarm_rate(first: Numbers, length: int, confidence: float) -> tuple[float, float, float]:
    """Alarms for each label, with Garwood's exact Poisson interval (1936): alarms over the labels seen until then."""
    alarms, labels = int(np.isfinite(first).sum()), float(np.minimum(first, length).sum())
    tail = (1 - confidence) / 2
    low = float(chi2.ppf(tail, 2 * alarms)) / 2 if alarms else 0.0
    high = float(chi2.ppf(1 - tail, 2 * alarms + 2)) / 2
    return alarms / labels, low / labels, high / labels


def dropped(scores: Numbers, drop: float, rng: np.random.Generator) -> Numbers:
    """The same histories, scoring `drop` less on average: some answers, drawn by chance, score 0."""
    mean = float(scores.mean())
    return np.where(rng.random(scores.shape) < min(1.0, drop / mean), 0.0, scores) if mean > 0 else scores


def median_delay(first: Numbers, confidence: float, samples: int, rng: np.random.Generator) -> Estimate | None:
    """The median with a percentile bootstrap interval; None where fewer than half rang."""
    value = float(np.median(first))
    if not np.isfinite(value):
        return None
    medians = np.median(rng.choice(first, (min(samples, 500), len(first))), axis=1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(medians, [tail, 1 - tail], method="nearest")
    return Estimate(value, min(value, float(low)), max(value, float(high)), len(first))
