"""Paired comparison of two systems on the same rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from perpetune.statistics.distributions import sign_test
from perpetune.statistics.estimate import BLOCK, Floats, wilson
from perpetune.statistics.sequential.betting import mean_bounds, p_value_above
from perpetune.statistics.units import are_rows, effective_rows, mean_square, units_of

Mask = npt.NDArray[np.bool_]

MCNEMAR = "exact McNemar test, Newcombe interval"
BETTING = "betting test and interval"
CLUSTERED = (
    "sign-flip test of groups (betting if rows weigh differently), Newcombe interval with the effective number of rows"
)


@dataclass(frozen=True)
class PairedComparison:
    """The mean of b - a over n rows, with its interval.

    `p_value` is one-sided for "b is better than a", `p_two_sided` for "they differ". `better` and `worse` count the
    rows on which b scores above and below a; `discordance` is the mean of (b - a) squared. `effective` is the number of
    independent rows that tell as much, if rows of one group are alike or weigh differently.
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
    effective: float | None = None


def compare(
    a_scores: Sequence[float],
    b_scores: Sequence[float],
    *,
    confidence: float,
    samples: int,
    seed: int,
    groups: Sequence[str] | None = None,
    weights: Sequence[float] | None = None,
) -> PairedComparison:
    """Compare two systems row by row; scores are in [0, 1], and row i is the same row in both.

    If all scores are 0 or 1: McNemar's exact test (McNemar 1947) and Newcombe's method 10 for the interval (Newcombe
    1998, Statistics in Medicine 17:2635). Otherwise a test and an interval by betting, which hold their level for skewed
    scores too (see perpetune/statistics/sequential/betting.py). If no row differs, the interval is exact: see `unseen_ratio`. The
    order of the rows does not matter.

    Rows of one of the `groups` are one observation; `weights` are what each row counts in the mean. Scores of 0 and 1 then
    get a sign-flip test of the groups' sums, or betting if weights differ, and the interval of the effective number of
    rows. Raises ValueError if the
    lengths differ or there are no rows.
    """
    if len(a_scores) != len(b_scores) or not a_scores:
        raise ValueError(f"both systems need scores of the same rows, got {len(a_scores)} and {len(b_scores)} scores")
    if not set(a_scores) | set(b_scores) <= {0.0, 1.0}:
        return _compare_means(a_scores, b_scores, confidence, groups, weights)
    if are_rows(groups, weights):
        return _compare_proportions(a_scores, b_scores, confidence)
    return _compare_clustered(a_scores, b_scores, confidence, samples, seed, groups, weights)


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
        p_value=sign_test(only_b, discordant),
        p_two_sided=min(1.0, 2 * sign_test(max(only_a, only_b), discordant)),
        n=len(pairs),
        better=only_b,
        worse=only_a,
        discordance=discordant / len(pairs),
        method=MCNEMAR,
    )


def unseen_ratio(rows: float, confidence: float) -> float:
    """Clopper and Pearson's upper bound for 0 of `rows` (Biometrika 26 (1934) 404).

    If no row differs, the mean scores of the two systems differ by at most this, at this confidence.
    """
    return float(1 - ((1 - confidence) / 2) ** (1 / rows))


def newcombe(
    both: float, only_first: float, only_second: float, neither: float, confidence: float
) -> tuple[float, float]:
    """The interval of the difference of two paired proportions, first minus second: Newcombe's method 10.

    It combines the two Wilson intervals with their correlation ("square and add"). Counts may be fractions.
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


def _continuity_corrected_phi(a: float, b: float, c: float, d: float) -> float:
    scale = math.sqrt((a + b) * (c + d) * (a + c) * (b + d))
    if scale == 0:
        return 0.0
    determinant = a * d - b * c
    corrected = max(determinant - (a + b + c + d) / 2, 0.0) if determinant > 0 else determinant
    return corrected / scale


def _compare_clustered(
    a_scores: Sequence[float],
    b_scores: Sequence[float],
    confidence: float,
    samples: int,
    seed: int,
    groups: Sequence[str] | None,
    weights: Sequence[float] | None,
) -> PairedComparison:
    a, b = np.asarray(a_scores, dtype=np.float64), np.asarray(b_scores, dtype=np.float64)
    rows = np.ones_like(a) if weights is None else np.asarray(weights, dtype=np.float64)
    units = units_of(b - a, groups, weights)
    effective = effective_rows(units, b - a, weights)
    both, only_b, only_a, neither = (effective * math.fsum(rows[cell]) / math.fsum(rows) for cell in _cells(a, b))
    if (a != b).any():
        low, high = newcombe(both, only_b, only_a, neither, confidence)
    else:
        high = unseen_ratio(effective, confidence)
        low = -high
    if len(set(rows.tolist())) > 1:  # signs are not exchangeable if wins and losses were drawn unlike
        greater, less = (p_value_above(sign * units.means, 0.0, units.weights) for sign in (1, -1))
    else:
        greater, less = _sign_flip_p_values(units.totals, samples, seed)
    return PairedComparison(
        difference=units.mean,
        low=min(low, units.mean),
        high=max(high, units.mean),
        p_value=greater,
        p_two_sided=min(1.0, 2 * min(greater, less)),
        n=len(a),
        better=int((b > a).sum()),
        worse=int((b < a).sum()),
        discordance=mean_square(b - a, weights),
        method=CLUSTERED,
        effective=effective,
    )


def _cells(a: Floats, b: Floats) -> tuple[Mask, Mask, Mask, Mask]:
    """The rows on which both are right, only b, only a, and neither: first minus second is b - a."""
    return (a == 1) & (b == 1), (a == 0) & (b == 1), (a == 1) & (b == 0), (a == 0) & (b == 0)


def _sign_flip_p_values(totals: Floats, samples: int, seed: int) -> tuple[float, float]:
    """One-sided p-values for b and for a: how often random signs of the units give a sum as large.

    The sample itself is counted, which keeps the level exact (Phipson & Smyth 2010).
    """
    differing = np.abs(totals[totals != 0])
    if not differing.size:
        return 1.0, 1.0
    rng = np.random.default_rng(seed)
    observed, drawn = float(totals.sum()), np.empty(samples)
    for first in range(0, samples, step := max(1, BLOCK // differing.size)):
        signs = rng.integers(0, 2, (min(step, samples - first), differing.size)) * 2 - 1
        drawn[first : first + step] = signs @ differing
    greater, less = int((drawn >= observed - 1e-9).sum()), int((drawn <= observed + 1e-9).sum())
    return (1 + greater) / (1 + samples), (1 + less) / (1 + samples)


def _compare_means(
    a_scores: Sequence[float],
    b_scores: Sequence[float],
    confidence: float,
    groups: Sequence[str] | None,
    weights: Sequence[float] | None,
) -> PairedComparison:
    differences = np.asarray(b_scores, dtype=np.float64) - np.asarray(a_scores, dtype=np.float64)
    units = units_of(differences, groups, weights)
    effective = effective_rows(units, differences, weights)
    if differences.any():
        low, high = mean_bounds(units.means, 1 - confidence, units.weights)
        greater, less = (p_value_above(sign * units.means, 0.0, units.weights) for sign in (1, -1))
    else:
        high = unseen_ratio(effective, confidence)
        low, greater, less = -high, 1.0, 1.0
    return PairedComparison(
        difference=units.mean,
        low=min(low, units.mean),
        high=max(high, units.mean),
        p_value=greater,
        p_two_sided=min(1.0, 2 * min(greater, less)),
        n=len(differences),
        better=int((differences > 0).sum()),
        worse=int((differences < 0).sum()),
        discordance=mean_square(differences, weights),
        method=BETTING,
        effective=None if are_rows(groups, weights) else effective,
    )
