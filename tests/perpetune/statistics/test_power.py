from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from perpetune.statistics.paired import newcombe, unseen_ratio
from perpetune.statistics.power import labels_to_collect, power_of, rows_needed


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
def test_the_exact_test_has_the_stated_power_with_the_rows_asked_for(discordance: float) -> None:
    rows = rows_needed(0.05, discordance, alpha=0.05, power=0.9)
    assert 0.89 < exact_power(rows, 0.05, discordance, 0.05) < 0.95


def test_a_margin_asks_for_fewer_rows() -> None:
    assert rows_needed(0.05, 0.12, alpha=0.05, power=0.9, margin=0.03) < rows_needed(0.05, 0.12, alpha=0.05, power=0.9)


@given(st.floats(0.005, 0.5), st.floats(0, 1), st.floats(0.001, 0.2), st.floats(0.5, 0.99), st.floats(0, 0.2))
def test_so_many_rows_have_the_power_and_half_of_them_have_not(
    gain: float, discordance: float, alpha: float, power: float, margin: float
) -> None:
    rows = rows_needed(gain, discordance, alpha=alpha, power=power, margin=margin)
    assert power_of(rows, gain, discordance, alpha=alpha, margin=margin) >= power - 1e-9
    if rows > 3:
        assert power_of(rows // 2, gain, discordance, alpha=alpha, margin=margin) < power


def test_equal_answers_need_the_rows_of_the_exact_bound() -> None:
    """122 rows without a difference leave less than 3 points of harm at 2.5%, and 121 do not."""
    needed = rows_needed(0.0, 0.0, alpha=0.025, power=0.9, margin=0.03)
    assert needed == 122
    assert unseen_ratio(needed, 0.95) < 0.03 < unseen_ratio(needed - 1, 0.95)
    assert power_of(needed, 0.0, 0.0, alpha=0.025, margin=0.03) == 1
    assert power_of(needed - 1, 0.0, 0.0, alpha=0.025, margin=0.03) == 0


def guard_power(rows: int, discordance: float, margin: float) -> float:
    """The chance that Newcombe's lower bound is above -margin for two systems that are equally good (85% right)."""
    found = 0.0
    for discordant in range(rows + 1):
        weight = binom.pmf(discordant, rows, discordance)
        if weight < 1e-6:
            continue
        both = round(0.85 * (rows - discordant))
        neither = rows - discordant - both
        chances = binom.pmf(np.arange(discordant + 1), discordant, 0.5)
        for wins in np.flatnonzero(chances > 1e-6):
            low = newcombe(both, int(wins), discordant - int(wins), neither, 0.95)[0]
            low = low if discordant else -unseen_ratio(rows, 0.95)
            found += weight * chances[wins] * (low > -margin)
    return found


@pytest.mark.parametrize("discordance", [0.005, 0.02, 0.05])
def test_the_guard_has_the_stated_power_however_little_the_two_differ(discordance: float) -> None:
    rows = rows_needed(0.0, discordance, alpha=0.025, power=0.9, margin=0.03)
    assert guard_power(rows, discordance, 0.03) > 0.89
    assert guard_power(rows // 2, discordance, 0.03) < 0.9


@pytest.mark.parametrize(("rows", "ratio", "labels"), [(31, 0.1, 310), (1, 0.3, 4), (30, 0.3, 100), (5, 0.0, None)])
def test_a_holdout_that_labels_join_by_lot_takes_more_of_them(rows: int, ratio: float, labels: int | None) -> None:
    assert labels_to_collect(rows, ratio) == labels
