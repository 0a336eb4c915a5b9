"""Calibration of predicted probabilities: reliability diagram, expected calibration error, Brier score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from perpetune.statistics.estimate import Estimate, estimate_mean, wilson

MAX_BINS = 15  # as Guo et al. 2017 (arXiv:1706.04599) report it
ROWS_PER_BIN = 10


@dataclass(frozen=True)
class Bin:
    """Rows of similar confidence: their mean confidence, and their accuracy with its interval."""

    confidence: float
    accuracy: Estimate


@dataclass(frozen=True)
class Calibration:
    """`error` is the expected calibration error: the mean over rows of |confidence - accuracy| of their bin."""

    error: float
    brier: Estimate
    bins: tuple[Bin, ...]


def calibration(
    expected: Sequence[str],
    answers: Sequence[str],
    probabilities: Sequence[Mapping[str, float] | None],
    *,
    confidence: float,
    samples: int,
    seed: int,
) -> Calibration | None:
    """Calibration of the answers' probabilities. Rows without them are skipped; None if no row has them."""
    rows = [(w, a, p) for w, a, p in zip(expected, answers, probabilities, strict=True) if p]
    if not rows:
        return None
    confidences = [p.get(a, 0.0) for _, a, p in rows]
    right = [w == a for w, a, _ in rows]
    bins = reliability(confidences, right, confidence=confidence)
    error = sum(bin.accuracy.n * abs(bin.accuracy.value - bin.confidence) for bin in bins) / len(rows)
    scores = [brier(w, p) for w, _, p in rows]
    return Calibration(error, estimate_mean(scores, confidence=confidence, samples=samples, seed=seed), bins)


def reliability(confidences: Sequence[float], right: Sequence[bool], *, confidence: float) -> tuple[Bin, ...]:
    """Equal-count bins in order of confidence (Nixon et al. 2019, arXiv:1904.01685).

    At most 15 bins, of about 10 rows or more. Rows of equal confidence share a bin, so the order of the rows does not
    matter.
    """
    values, hits = np.asarray(confidences, dtype=np.float64), np.asarray(right)
    count = min(MAX_BINS, max(1, len(values) // ROWS_PER_BIN))
    edges = np.unique(np.quantile(values, np.linspace(0, 1, count + 1)[1:-1], method="inverted_cdf"))
    members = np.searchsorted(edges, values, side="left")
    return tuple(
        Bin(
            float(values[members == bin].mean()),
            wilson(int(hits[members == bin].sum()), int((members == bin).sum()), confidence),
        )
        for bin in np.unique(members)
    )


def brier(expected: str, probabilities: Mapping[str, float]) -> float:
    """Half the Brier score (Brier 1950), in [0, 1]; 0 is perfect. An expected label without a probability has 0."""
    labels = {expected, *probabilities}
    distance = sum((probabilities.get(label, 0.0) - (label == expected)) ** 2 for label in sorted(labels))
    return min(1.0, distance / 2)
