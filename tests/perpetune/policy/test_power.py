from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from perpetune.policy.power import power_of, rows_needed


def exact_power(rows: int, gain: float, discordance: float, alpha: float) -> float:
    """Of the exact one-sided McNemar test, over all numbers of discordant rows."""
    found = 0.0
    for discordant in range(1, rows + 1):
        wins = np.arange(discordant + 1)
        rejected = binom.sf(wins - 1, discordant, 0.5) < alpha
        won = binom.pmf(wins, discordant, (1 + gain / discordance) / 2)
        found += binom.pmf(discordant, rows, discordance) * won[rejected].sum()
    return found


@pytest.mark.parametrize("discordance", [0.06, 0.12, 0.3])
def test_the_exact_test_has_the_stated_power_with_the_rows_asked_for(discordance):
    rows = rows_needed(0.05, discordance, alpha=0.05, power=0.9)
    assert 0.89 < exact_power(rows, 0.05, discordance, 0.05) < 0.95


def test_a_margin_asks_for_fewer_rows():
    assert rows_needed(0.05, 0.12, alpha=0.05, power=0.9, margin=0.03) < rows_needed(0.05, 0.12, alpha=0.05, power=0.9)


@given(st.floats(0.005, 0.5), st.floats(0, 1), st.floats(0.001, 0.2), st.floats(0.5, 0.99), st.floats(0, 0.2))
def test_so_many_rows_have_the_power_and_half_of_them_have_not(gain, discordance, alpha, power, margin):
    rows = rows_needed(gain, discordance, alpha=alpha, power=power, margin=margin)
    assert power_of(rows, gain, discordance, alpha=alpha, margin=margin) >= power - 1e-9
    if rows > 3:
        assert power_of(rows // 2, gain, discordance, alpha=alpha, margin=margin) < power
