"""Whether the champion is worse than it was: labelled window against reference, beyond a margin."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from math import acos, copysign, cos, inf, isnan, pi, sqrt

import numpy as np
from scipy.optimize import bisect
from scipy.stats import binomtest, norm, t, ttest_ind

from perpetune.params import WatchParams
from perpetune.policy.retraining import Decay
from perpetune.policy.verdict import Interval, Score

SCORE_TEST = "Miettinen-Nurminen score test"
WELCH_TEST = "Welch t test"


def measure_decay(window: Sequence[float], reference: Sequence[float], params: WatchParams) -> Decay | None:
    """Compare the scores (0 to 1) of the window's labelled answers with the champion's on the reference.

    The two are different rows, and both are uncertain. Scores that are all 0 or 1 take the score test
    of Miettinen and Nurminen (Statistics in Medicine 1985;4:213), with the restricted estimates that Farrington
    and Manning (1990;9:1447) give in closed form; graded scores take Welch's t test. Intervals
    have the level 1 - 2 alpha, so that the drop's lies above the margin exactly where p is below alpha.
    None where either side is empty.
    """
    if not window or not reference:
        return None
    now, then = np.asarray(window, dtype=float), np.asarray(reference, dtype=float)
    right_or_wrong = bool(np.isin(np.concatenate([now, then]), (0.0, 1.0)).all())
    compare = _compare_shares if right_or_wrong else _compare_means
    interval, p_value = compare(now, then, params.margin, params.alpha)
    return Decay(
        window=_score(now, right_or_wrong, params.alpha),
        reference=_score(then, right_or_wrong, params.alpha),
        drop=float(then.mean() - now.mean()),
        interval=interval,
        margin=params.margin,
        p_value=p_value,
        test=SCORE_TEST if right_or_wrong else WELCH_TEST,
    )


def _score(scores: np.ndarray, right_or_wrong: bool, alpha: float) -> Score:
    rows, mean, level = len(scores), float(scores.mean()), 1 - 2 * alpha
    if right_or_wrong:
        wilson = binomtest(int(scores.sum()), rows).proportion_ci(level, method="wilson")
        return Score(mean, Interval(float(wilson.low), float(wilson.high), level), rows)
    if rows < 2:
        return Score(mean, Interval(0.0, 1.0, level), rows)
    reach = float(t.ppf(1 - alpha, rows - 1) * scores.std(ddof=1) / sqrt(rows))
    return Score(mean, Interval(mean - reach, mean + reach, level), rows)


def _compare_means(now: np.ndarray, then: np.ndarray, margin: float, alpha: float) -> tuple[Interval, float]:
    level = 1 - 2 * alpha
    if min(len(now), len(then)) < 2:
        return Interval(-1.0, 1.0, level), 1.0
    with warnings.catch_warnings():
        # Scores without any spread: scipy warns, and its p is then 0, 1 or nan as the means say.
        warnings.simplefilter("ignore", RuntimeWarning)
        p_value = float(ttest_ind(then - margin, now, equal_var=False, alternative="greater").pvalue)
        interval = ttest_ind(then, now, equal_var=False).confidence_interval(level)
    drop = float(then.mean() - now.mean())
    low, high = (drop if isnan(end) else float(end) for end in (interval.low, interval.high))
    return Interval(low, high, level), 1.0 if isnan(p_value) else p_value


def _compare_shares(now: np.ndarray, then: np.ndarray, margin: float, alpha: float) -> tuple[Interval, float]:
    counts = int(then.sum()), len(then), int(now.sum()), len(now)
    p_value = float(norm.sf(_score_statistic(*counts, margin)))
    drop, reach = counts[0] / counts[1] - counts[2] / counts[3], float(norm.isf(alpha))
    low = _crossing(counts, reach, -1.0, drop)
    high = _crossing(counts, -reach, drop, 1.0)
    return Interval(low, high, 1 - 2 * alpha), p_value


def _crossing(counts: tuple[int, int, int, int], level: float, low: float, high: float) -> float:
    """Where the statistic, which falls as the supposed difference grows, equals `level`."""

    def excess(difference: float) -> float:
        return _score_statistic(*counts, difference) - level

    if excess(low) <= 0:
        return low
    if excess(high) >= 0:
        return high
    return float(bisect(excess, low, high))


def _score_statistic(right1: int, rows1: int, right2: int, rows2: int, difference: float) -> float:
    """Standard deviations by which share 1 minus share 2 lies above the supposed `difference`."""
    above = right1 / rows1 - right2 / rows2 - difference
    share1, share2 = _restricted_shares(right1, rows1, right2, rows2, difference)
    rows = rows1 + rows2
    variance = (share1 * (1 - share1) / rows1 + share2 * (1 - share2) / rows2) * rows / (rows - 1)
    if variance <= 0:
        return 0.0 if abs(above) < 1e-9 else copysign(inf, above)
    return above / sqrt(variance)


def _restricted_shares(right1: int, rows1: int, right2: int, rows2: int, difference: float) -> tuple[float, float]:
    """The likeliest two shares that differ by exactly `difference` (Farrington and Manning, appendix)."""
    ratio, p1, p2 = rows2 / rows1, right1 / rows1, right2 / rows2
    a = 1 + ratio
    b = -(1 + ratio + p1 + ratio * p2 + difference * (ratio + 2))
    c = difference**2 + difference * (2 * p1 + ratio + 1) + p1 + ratio * p2
    d = -p1 * difference * (1 + difference)
    v = (b / (3 * a)) ** 3 - b * c / (6 * a**2) + d / (2 * a)
    u = copysign(sqrt(max((b / (3 * a)) ** 2 - c / (3 * a), 0.0)), v)
    cosine = min(max(v / u**3, -1.0), 1.0) if u else 0.0
    share1 = 2 * u * cos((pi + acos(cosine)) / 3) - b / (3 * a)
    share1 = min(max(share1, 0.0, difference), 1.0, 1.0 + difference)
    return share1, min(max(share1 - difference, 0.0), 1.0)
