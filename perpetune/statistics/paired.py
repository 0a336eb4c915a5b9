"""Paired comparison of two systems on the same rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest, permutation_test

from perpetune.statistics.estimate import BLOCK, Floats, bootstrap_mean, wilson

MCNEMAR = "exact McNemar test, Newcombe interval"
PERMUTATION = "sign-flip permutation test, paired bootstrap interval"


@dataclass(frozen=True)
class PairedComparison:
    """The mean of b - a over n rows, with its interval.

    `p_value` is one-sided for "b is better than a", `p_two_sided` for "they differ". `better` and `worse` count the
    rows on which b scores above and below a; `discordance` is the mean of (b - a) squared.
    """

    difference: float
    low: float
    high: float
    p_value: float
    p_two_sided: float
    n: int
    better: int
    worse: int
    discordance: float
    method: str


def compare(
    a_scores: Sequence[float], b_scores: Sequence[float], *, confidence: float, samples: int, seed: int
) -> PairedComparison:
    """Compare two systems row by row; scores are in [0, 1], and row i is the same row in both.

    If all scores are 0 or 1: McNemar's exact test (McNemar 1947) and Newcombe's method 10 for the interval (Newcombe
    1998, Statistics in Medicine 17:2635). Otherwise a sign-flip permutation test and a paired bootstrap interval. If
    no row differs, the interval is exact: see `unseen_ratio`. The order of the rows does not matter. Raises ValueError
    if the lengths differ or there are no rows.
    """
    if len(a_scores) != len(b_scores) or not a_scores:
        raise ValueError(f"both systems need scores of the same rows, got {len(a_scores)} and {len(b_scores)} scores")
    if set(a_scores) | set(b_scores) <= {0.0, 1.0}:
        return _compare_proportions(a_scores, b_scores, confidence)
    return _compare_means(a_scores, b_scores, confidence, samples, seed)


def _compare_proportions(a_scores: Sequence[float], b_scores: Sequence[float], confidence: float) -> PairedComparison:
    pairs = list(zip(a_scores, b_scores, strict=True))
    both, only_a, only_b, neither = (pairs.count(kind) for kind in ((1, 1), (1, 0), (0, 1), (0, 0)))
    discordant = only_a + only_b
    if discordant:
        low, high = newcombe(both, only_b, only_a, neither, confidence)
    else:
        high = unseen_ratio(len(pairs), confidence)
        low = -high
    return PairedComparison(
        difference=(only_b - only_a) / len(pairs),
        low=low,
        high=high,
        p_value=float(binomtest(only_b, discordant, 0.5, "greater").pvalue) if discordant else 1.0,
        p_two_sided=float(binomtest(only_b, discordant, 0.5).pvalue) if discordant else 1.0,
        n=len(pairs),
        better=only_b,
        worse=only_a,
        discordance=discordant / len(pairs),
        method=MCNEMAR,
    )


def unseen_ratio(rows: int, confidence: float) -> float:
    """Clopper and Pearson's upper bound for 0 of `rows` (Biometrika 26 (1934) 404).

    If no row differs, the mean scores of the two systems differ by at most this, at this confidence.
    """
    return float(1 - ((1 - confidence) / 2) ** (1 / rows))


def newcombe(both: int, only_first: int, only_second: int, neither: int, confidence: float) -> tuple[float, float]:
    """The interval of the difference of two paired proportions, first minus second: Newcombe's method 10.

    It combines the two Wilson intervals with their correlation ("square and add").
    """
    n = both + only_first + only_second + neither
    first, second = wilson(both + only_first, n, confidence), wilson(both + only_second, n, confidence)
    phi = _continuity_corrected_phi(both, only_first, only_second, neither)

    def reach(up: float, down: float) -> float:
        return math.sqrt(max(0.0, up * up - 2 * phi * up * down + down * down))

    difference = (only_first - only_second) / n
    return (
        difference - reach(first.value - first.low, second.high - second.value),
        difference + reach(first.high - first.value, second.value - second.low),
    )


def _continuity_corrected_phi(a: int, b: int, c: int, d: int) -> float:
    scale = math.sqrt((a + b) * (c + d) * (a + c) * (b + d))
    if scale == 0:
        return 0.0
    determinant = a * d - b * c
    corrected = max(determinant - (a + b + c + d) / 2, 0.0) if determinant > 0 else determinant
    return corrected / scale


def _compare_means(
    a_scores: Sequence[float], b_scores: Sequence[float], confidence: float, samples: int, seed: int
) -> PairedComparison:
    differences = np.sort(np.asarray(b_scores, dtype=np.float64) - np.asarray(a_scores, dtype=np.float64))
    if not differences.any():
        unseen, rows = unseen_ratio(len(differences), confidence), len(differences)
        return PairedComparison(
            0.0, -unseen, unseen, 1.0, 1.0, rows, better=0, worse=0, discordance=0.0, method=PERMUTATION
        )
    estimate = bootstrap_mean(
        differences.tolist(), lowest=-1.0, highest=1.0, confidence=confidence, samples=samples, seed=seed
    )
    better, worse = int((differences > 0).sum()), int((differences < 0).sum())
    greater, less = (_permutation_p(differences, side, samples, seed) for side in ("greater", "less"))
    return PairedComparison(
        difference=estimate.value,
        low=estimate.low,
        high=estimate.high,
        p_value=greater,
        p_two_sided=min(1.0, 2 * min(greater, less)),
        n=len(differences),
        better=better,
        worse=worse,
        discordance=float(np.mean(differences**2)),
        method=PERMUTATION,
    )


def _permutation_p(differences: Floats, side: str, samples: int, seed: int) -> float:
    """Exact if there are fewer than `samples` sign flips, else by random flips.

    Rows without a difference are dropped, and two zeros are appended because scipy refuses fewer than two rows.
    """
    flippable = np.append(differences[differences != 0], [0.0, 0.0])
    result = permutation_test(
        (flippable,),
        np.sum,
        permutation_type="samples",
        vectorized=True,
        n_resamples=samples,
        batch=max(1, BLOCK // len(flippable)),
        alternative=side,
        rng=np.random.default_rng(seed),
    )
    return float(result.pvalue)
