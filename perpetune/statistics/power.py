"""How many rows a paired comparison needs to find what it looks for."""

from __future__ import annotations

import math
from statistics import NormalDist


def rows_needed(gain: float, discordance: float, *, alpha: float, power: float, margin: float = 0.0) -> int:
    """Rows with which a true difference of `gain` is shown to be above -`margin` with a chance of `power`.

    One-sided at `alpha`; `gain` and `margin` are not both 0. `discordance` is the mean squared difference of a row,
    for scores of 0 and 1 the share of rows that the two score differently; it cannot be less than the gain. Connor,
    Sample size for testing differences in proportions for the paired-sample design, Biometrics 43 (1987) 207, with
    the continuity correction that an exact test costs. If no row is scored differently, the exact bound for 0 of n
    says it: (1 - margin) to the power of n is at most `alpha`.
    """
    if not discordance and not gain:
        return math.ceil(math.log(alpha) / math.log1p(-margin))
    null, true = _spreads(gain, discordance, margin)
    reach = gain + margin
    rows = ((_z(1 - alpha) * null + _z(power) * true) / reach) ** 2
    return math.ceil(rows / 4 * (1 + math.sqrt(1 + 4 / (rows * reach))) ** 2)


def power_of(rows: int, gain: float, discordance: float, *, alpha: float, margin: float = 0.0) -> float:
    """The chance that so many rows show it: what `rows_needed` turns around."""
    if not discordance and not gain:
        return float((1 - margin) ** rows <= alpha)
    null, true = _spreads(gain, discordance, margin)
    reach = gain + margin - 1 / rows
    return NormalDist().cdf((reach * math.sqrt(rows) - _z(1 - alpha) * null) / true)


def labels_to_collect(rows: int, ratio: float) -> int | None:
    """Labels of production that bring so many rows to a holdout, which `ratio` of them join; None if none ever does."""
    return math.ceil(rows / ratio - 1e-9) if ratio > 0 else None  # rounding must not ask for one more


def _spreads(gain: float, discordance: float, margin: float) -> tuple[float, float]:
    """Standard deviations of a row's difference: where its mean is -margin, and where it is the gain."""
    least = max(discordance, gain)
    return math.sqrt(max(least, margin) - margin**2), math.sqrt(least - gain**2)


def _z(chance: float) -> float:
    return NormalDist().inv_cdf(chance)
