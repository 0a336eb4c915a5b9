from __future__ import annotations

import numpy as np
import pytest

from perpetune.policy.promotion.outweighing import gain_outweighs_loss, p_of_mean_gain
from perpetune.policy.verdict import Interval
from perpetune.statistics.paired import compare


@pytest.mark.parametrize(
    ("difference", "guard", "gain", "opens"),
    [
        (0.0, (-0.06, 0.06), (0.3, 0.5), True),
        (0.0, (-0.06, 0.06), (0.01, 0.1), False),  # less than may have been lost
        (-0.04, (-0.1, 0.02), (0.3, 0.5), False),  # the loss seen is beyond the margin
        (0.05, (0.01, 0.09), (-0.01, 0.1), False),  # no gain is shown
    ],
)
def test_a_gain_opens_the_gate_only_if_it_is_more_than_what_may_be_lost(
    difference: float, guard: tuple[float, float], gain: tuple[float, float], opens: bool
) -> None:
    assert gain_outweighs_loss(difference, Interval(*guard), Interval(*gain), 0.03) is opens


def scores(rng: np.random.Generator, rows: int, worse: float, better: float) -> tuple[list[float], list[float]]:
    """Of a champion that is right on 80% and a challenger that alone is wrong or right on so many rows."""
    kind = rng.choice(4, rows, p=[0.8 - worse, worse, better, 0.2 - better])
    return np.isin(kind, (0, 1)).astype(float).tolist(), np.isin(kind, (0, 2)).astype(float).tolist()


def passes(seed: int, frozen: tuple[float, float], recent: tuple[float, float]) -> bool:
    rng = np.random.default_rng(seed)
    guard, gain = (
        compare(*scores(rng, rows, *shares), confidence=0.95, samples=1, seed=0)
        for rows, shares in ((90, frozen), (120, recent))
    )
    seen = gain_outweighs_loss(guard.difference, Interval(guard.low, guard.high), Interval(gain.low, gain.high), 0.03)
    return seen and gain.p_value < 0.05


def test_it_opens_for_hardly_any_challenger_that_is_no_better_and_for_most_that_are_much_better() -> None:
    useless = np.mean([passes(seed, (0.05, 0.05), (0.05, 0.05)) for seed in range(300)])
    on_balance_worse = np.mean([passes(seed, (0.1, 0.02), (0.05, 0.1)) for seed in range(300)])
    much_better = np.mean([passes(seed, (0.03, 0.03), (0.0, 0.19)) for seed in range(60)])

    assert useless < 0.01
    assert on_balance_worse < 0.01
    assert much_better > 0.7


@pytest.mark.parametrize(
    ("gain", "gain_error", "guard", "guard_error", "p_value"),
    [
        (0.02, 0.02, -0.02, 0.02, 0.5),
        (0.05, 0.03, 0.0, 0.04, 0.1587),  # one standard error
        (0.0, 0.03, -0.05, 0.04, 0.8413),
        (0.0, 0.0, 0.0, 0.0, 1.0),
        (0.01, 0.0, 0.0, 0.0, 0.0),
    ],
)
def test_the_mean_of_both_holdouts_has_a_p_value(
    gain: float, gain_error: float, guard: float, guard_error: float, p_value: float
) -> None:
    assert p_of_mean_gain(gain, gain_error, guard, guard_error) == pytest.approx(p_value, abs=1e-4)
