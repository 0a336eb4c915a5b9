"""How many rows a paired comparison needs to find what it looks for."""

from __future__ import annotations

import math
from statistics import NormalDist


def rows_needed(gain: float, discordance: float, *, alpha: float, power: float, margin: float = 0.0) -> int:
    """Rows with which a true difference of `gain` is shown to be above -`margin` with a chance of `power`.

    One-sided at `alpha`; `gain` and `margin` are not both 0. `discordance` is the mean squared difference of a row,
    for scores of 0 and 1 the share of rows that the two score differently; it cannot be less than the gain. Connor,
    Sample size for testing differences in proportions for the paired-sample design, Biometrics 43 (1987) 207, with
    the continuity correction that an exact test costs.
    """
    null, true = _spreads(gain, discordance, margin)
    reach = gain + margin
    rows = ((_z(1 - alpha) * null + _z(power) * true) / reach) ** 2
    return math.ceil(rows / 4 * (1 + math.sqrt(1 + 4 / (rows * reach))) ** 2)


def power_of(rows: int, gain: float, discordance: float, *, alpha: float, margin: float = 0.0) -> float:
    """The chance that so many rows show it: what `rows_needed` turns around."""
    null, true = _spreads(gain, discordance, margin)
    reach = gain + margin - 1 / rows
    return NormalDist().cdf((reach * math.sqrt(rows) - _z(1 - alpha) * null) / true)


def _spreads(gain: float, discordance: float, margin: float) -> tuple[float, float]:
    """Standard deviations of a row's difference: where its mean is -margin, and where it is the gain."""
    squares = max(discordance, gain, margin)
    return math.sqrt(squares - margin**2), math.sqrt(squares - gain**2)


def _z(chance: float) -> float:
    return NormalDist().inv_cdf(chance)
