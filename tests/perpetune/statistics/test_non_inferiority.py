from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import multinomial

from perpetune.statistics.non_inferiority import EXACT_ROWS, inferiority_p_value, inferiority_p_value_of_counts

QUICK = settings(max_examples=40, deadline=None)
MARGIN = 0.1
graded = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=40)


@pytest.mark.parametrize("rows", [20, 40])
@pytest.mark.parametrize("discordant", [0.1, 0.13, 0.2, 0.5])
def test_at_the_margin_the_exact_test_errs_with_its_level_at_most(rows: int, discordant: float) -> None:
    tables = [(up, down) for up in range(rows + 1) for down in range(rows + 1 - up)]
    chances = multinomial(rows, [(discordant - MARGIN) / 2, (discordant + MARGIN) / 2, 1 - discordant])
    weights = chances.pmf([(up, down, rows - up - down) for up, down in tables])
    likely = [(table, weight) for table, weight in zip(tables, weights, strict=True) if weight > 1e-7]
    p_values = np.array([inferiority_p_value_of_counts(*table, rows, MARGIN) for table, _ in likely])
    for level in (0.01, 0.05):
        assert sum(weight for (_, weight), p in zip(likely, p_values, strict=True) if p < level) <= level


def test_the_exact_and_the_score_test_agree_at_the_switch() -> None:
    few, many = EXACT_ROWS, EXACT_ROWS + 1
    assert inferiority_p_value_of_counts(5, 34, few, MARGIN) == pytest.approx(
        inferiority_p_value_of_counts(5, 34, many, MARGIN), rel=0.35
    )


def test_great_harm_is_shown_and_equality_is_not() -> None:
    right, wrong = [1.0] * 60, [1.0] * 30 + [0.0] * 30
    assert inferiority_p_value(MARGIN, right, wrong) < 1e-4
    assert inferiority_p_value(MARGIN, right, right) > 0.5
    assert inferiority_p_value(MARGIN, [0.9] * 60, [0.4] * 60) < 1e-4


@QUICK
@given(st.integers(1, 60), st.data())
def test_a_row_more_that_got_worse_never_raises_p(rows: int, data: st.DataObject) -> None:
    up = data.draw(st.integers(0, rows))
    down = data.draw(st.integers(0, rows - up))
    before = inferiority_p_value_of_counts(up, down, rows, MARGIN)
    if up:
        assert inferiority_p_value_of_counts(up - 1, down, rows, MARGIN) <= before + 1e-9
    if up + down < rows:
        assert inferiority_p_value_of_counts(up, down + 1, rows, MARGIN) <= before + 1e-9


@QUICK
@given(graded)
def test_a_p_value_is_a_probability(pairs: list[tuple[float, float]]) -> None:
    assert 0 <= inferiority_p_value(MARGIN, *zip(*pairs, strict=True)) <= 1


@pytest.mark.parametrize("rows", [20, 200])
def test_rare_large_gains_do_not_fool_the_test_of_graded_scores(rows: int) -> None:
    # The mean is -0.1, at the margin, but four samples of 20 in ten hold none of the rows that lift it there.
    rng = np.random.default_rng(4)
    p_values = [
        inferiority_p_value(MARGIN, [0.15] * rows, list(np.where(rng.random(rows) < 0.05, 1.0, 0.0)))
        for _ in range(400)
    ]
    assert np.mean(np.array(p_values) < 0.05) <= 0.05
