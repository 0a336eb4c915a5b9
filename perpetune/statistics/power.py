"""Sample size and power of paired comparisons."""

from __future__ import annotations

import math
from statistics import NormalDist


def rows_needed(gain: float, discordance: float, *, alpha: float, power: float, margin: float = 0.0) -> int:
    """The sample size to show, with this `power`, that a true difference of `gain` is above -`margin`.

    One-sided at `alpha`; `gain` and `margin` are not both 0. `discordance` is the mean squared difference of a row
    (for scores of 0 and 1 the ratio of discordant rows) and at least `gain`. Connor, Sample size for testing
    differences in proportions for the paired-sample design, Biometrics 43 (1987) 207, with a continuity correction
    for the exact test. If both `discordance` and `gain` are 0, n is exact: (1 - margin) ** n <= alpha.
    """
    if not discordance and not gain:
        return math.ceil(math.log(alpha) / math.log1p(-margin))
    null, true = _standard_deviations(gain, discordance, margin)
    effect = gain + margin
    rows = ((_z(1 - alpha) * null + _z(power) * true) / effect) ** 2
    return math.ceil(rows / 4 * (1 + math.sqrt(1 + 4 / (rows * effect))) ** 2)


def rows_to_tell(discordance: float, *, gain: float, margin: float, alpha: float, power: float) -> int:
    """The sample size with which a paired comparison tells, with this `power`, whether a system is needed.

    Either that it is better, if it truly is by `gain`, or that the other is not worse by `margin`, if they truly are
    alike; both one-sided at `alpha`. `margin` 0 asks for the first only.
    """
    superior = rows_needed(gain, discordance, alpha=alpha, power=power)
    return max(superior, rows_needed(0.0, discordance, alpha=alpha, power=power, margin=margin)) if margin else superior


def power_of(rows: int, gain: float, discordance: float, *, alpha: float, margin: float = 0.0) -> float:
    """The power of a sample of `rows`: the inverse of `rows_needed`."""
    if not discordance and not gain:
        return float((1 - margin) ** rows <= alpha)
    null, true = _standard_deviations(gain, discordance, margin)
    effect = gain + margin - 1 / rows
    return NormalDist().cdf((effect * math.sqrt(rows) - _z(1 - alpha) * null) / true)


def labels_to_collect(rows: int, ratio: float) -> int | None:
    """Production labels needed to add `rows` to a holdout that takes `ratio` of them; None if it takes none."""
    return math.ceil(rows / ratio - 1e-9) if ratio > 0 else None  # rounding must not add one


def _standard_deviations(gain: float, discordance: float, margin: float) -> tuple[float, float]:
    """Standard deviations of a row's difference, if its mean is -margin and if it is the gain."""
    least = max(discordance, gain)
    return math.sqrt(max(least, margin) - margin**2), math.sqrt(least - gain**2)


def _z(chance: float) -> float:
    return NormalDist().inv_cdf(chance)
