"""Whether a probability of 0.8 means right four times in five."""

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
    wanted: Sequence[str],
    answers: Sequence[str],
    probabilities: Sequence[Mapping[str, float] | None],
    *,
    confidence: float,
    samples: int,
    seed: int,
) -> Calibration | None:
    """Calibration of the answers' probabilities; None where no row has them (rows without are left out)."""
    rows = [(w, a, p) for w, a, p in zip(wanted, answers, probabilities, strict=True) if p]
    if not rows:
        return None
    confidences = [p.get(a, 0.0) for _, a, p in rows]
    right = [w == a for w, a, _ in rows]
    bins = reliability(confidences, right, confidence=confidence)
    error = sum(bin.accuracy.n * abs(bin.accuracy.value - bin.confidence) for bin in bins) / len(rows)
    scores = [brier(w, p) for w, _, p in rows]
    return Calibration(error, estimate_mean(scores, confidence=confidence, samples=samples, seed=seed), bins)


def reliability(confidences: Sequence[float], right: Sequence[bool], *, confidence: float) -> tuple[Bin, ...]:
    """Bins of equally many rows (Nixon et al. 2019, arXiv:1904.01685), in order of confidence.

    At most 15 bins and about 10 rows a bin at least; rows of equal confidence are never parted, so
    the order of the rows is irrelevant.
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


def brier(wanted: str, probabilities: Mapping[str, float]) -> float:
    """Half the squared distance from the probabilities to the truth (Brier 1950), in [0, 1]; 0 is perfect.

    A wanted label that has no probability counts as one of probability 0.
    """
    labels = {wanted, *probabilities}
    distance = sum((probabilities.get(label, 0.0) - (label == wanted)) ** 2 for label in sorted(labels))
    return min(1.0, distance / 2)
