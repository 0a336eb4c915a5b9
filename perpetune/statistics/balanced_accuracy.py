"""Paired comparison by balanced accuracy: every label has the same weight."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from perpetune.statistics.estimate import Floats
from perpetune.statistics.paired import PairedComparison, newcombe

METHOD = "sign-flip test of rows weighted by label, Newcombe intervals of the labels joined (MOVER)"
MIN_STRATUM_ROWS = 10  # a label with fewer rows is no stratum: one row would weigh as much as a hundred others


def strata(labels: Sequence[str]) -> list[str]:
    """The stratum of each row: its label, or "" for all labels with fewer than `MIN_STRATUM_ROWS` rows.

    If those rows together are still too few, they join the smallest label that has enough.
    """
    counts = Counter(labels)
    large = {label: rows for label, rows in counts.items() if rows >= MIN_STRATUM_ROWS}
    rest = sum(counts.values()) - sum(large.values())
    other = min(large, key=lambda label: (large[label], label)) if large and rest < MIN_STRATUM_ROWS else ""
    return [label if label in large else other for label in labels]


def balanced_mean(labels: Sequence[str], scores: Sequence[float]) -> float:
    """The mean over strata of the mean score of their rows."""
    return float(np.mean([each.mean() for each in _by_stratum(labels, scores)]))


@dataclass(frozen=True)
class _Stratum:
    """How often both systems, only one of them, or neither was right on the rows of a stratum."""

    both: int
    only_a: int
    only_b: int
    neither: int

    @property
    def rows(self) -> int:
        return self.both + self.only_a + self.only_b + self.neither

    @property
    def difference(self) -> float:
        return (self.only_b - self.only_a) / self.rows


def compare_balanced(
    labels: Sequence[str],
    a_scores: Sequence[float],
    b_scores: Sequence[float],
    *,
    confidence: float,
    samples: int,
    seed: int,
) -> PairedComparison:
    """Compare two systems on the same rows, right (1) or wrong (0), with the same weight for every label.

    The interval combines the labels' intervals (Newcombe's method 10) by MOVER (Zou and Donner, Statistics in Medicine
    27 (2008) 1693). Unlike a bootstrap interval it has a width even if all rows of a rare label score the same. The
    p-value is that of a sign-flip test with the labels' weights. The flips are drawn at random and the sample itself
    is counted (Phipson and Smyth 2010), which keeps the level exact.
    """
    strata_counts = [
        _stratum(a, b) for a, b in zip(_by_stratum(labels, a_scores), _by_stratum(labels, b_scores), strict=True)
    ]
    difference = float(np.mean([each.difference for each in strata_counts]))
    below, above = _half_widths(strata_counts, confidence)
    weights = [1 / (len(strata_counts) * each.rows) for each in strata_counts]
    greater, less = _sign_flip_p_values(strata_counts, weights, samples, seed)
    rows = len(labels)
    return PairedComparison(
        difference=difference,
        low=max(-1.0, difference - below),
        high=min(1.0, difference + above),
        p_value=greater,
        p_two_sided=min(1.0, 2 * min(greater, less)),
        n=rows,
        better=sum(each.only_b for each in strata_counts),
        worse=sum(each.only_a for each in strata_counts),
        discordance=sum(
            rows * weight**2 * (each.only_a + each.only_b) for each, weight in zip(strata_counts, weights, strict=True)
        ),
        method=METHOD,
    )


def _by_stratum(labels: Sequence[str], scores: Sequence[float]) -> list[Floats]:
    of, values = np.asarray(strata(labels)), np.asarray(scores, dtype=np.float64)
    return [values[of == stratum] for stratum in sorted(set(of.tolist()))]


def _stratum(a: Floats, b: Floats) -> _Stratum:
    return _Stratum(
        both=int(((a == 1) & (b == 1)).sum()),
        only_a=int(((a == 1) & (b == 0)).sum()),
        only_b=int(((a == 0) & (b == 1)).sum()),
        neither=int(((a == 0) & (b == 0)).sum()),
    )


def _half_widths(strata_counts: Sequence[_Stratum], confidence: float) -> tuple[float, float]:
    """The distance from the mean difference to the lower and to the upper bound."""
    limits = [newcombe(each.both, each.only_b, each.only_a, each.neither, confidence) for each in strata_counts]
    below = math.sqrt(sum((each.difference - low) ** 2 for each, (low, _) in zip(strata_counts, limits, strict=True)))
    above = math.sqrt(sum((high - each.difference) ** 2 for each, (_, high) in zip(strata_counts, limits, strict=True)))
    return below / len(strata_counts), above / len(strata_counts)


def _sign_flip_p_values(
    strata_counts: Sequence[_Stratum], weights: Sequence[float], samples: int, seed: int
) -> tuple[float, float]:
    """One-sided p-values for b and for a: how often random signs give a difference as large."""
    rng = np.random.default_rng(seed)
    observed = sum(weight * (each.only_b - each.only_a) for each, weight in zip(strata_counts, weights, strict=True))
    drawn = np.zeros(samples)
    for each, weight in zip(strata_counts, weights, strict=True):
        discordant = each.only_a + each.only_b
        drawn += weight * (2 * rng.binomial(discordant, 0.5, samples) - discordant)
    greater, less = int((drawn >= observed - 1e-12).sum()), int((drawn <= observed + 1e-12).sum())
    return (1 + greater) / (1 + samples), (1 + less) / (1 + samples)
