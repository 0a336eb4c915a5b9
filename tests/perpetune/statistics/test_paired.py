from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, ttest_rel
from statsmodels.stats.contingency_tables import mcnemar

from perpetune.statistics.paired import BETTING, CLUSTERED, MCNEMAR, PairedComparison, compare, newcombe, unseen_ratio

QUICK = settings(max_examples=40, deadline=None)
binary = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=60)
graded = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=30)


def judged(pairs: Sequence[tuple[float, float]]) -> PairedComparison:
    a, b = zip(*pairs, strict=True)
    return compare([float(x) for x in a], [float(x) for x in b], confidence=0.95, samples=300, seed=5)


# Newcombe 1998, table of paired examples; Bentur et al. 2009 in Fagerland et al. 2014; Altman et al. 2000, table 6.2.
@pytest.mark.parametrize(
    ("table", "low", "high"),
    [((36, 12, 2, 0), 0.0569, 0.3404), ((1, 1, 7, 12), -0.507, -0.026), ((14, 5, 0, 22), 0.011, 0.226)],
)
def test_newcombes_interval_equals_published_ones(table: tuple[int, int, int, int], low: float, high: float) -> None:
    assert newcombe(*table, 0.95) == pytest.approx((low, high), abs=5e-4)


def test_mcnemar_equals_statsmodels() -> None:
    pairs = [(1, 1)] * 40 + [(1, 0)] * 4 + [(0, 1)] * 13 + [(0, 0)] * 9
    found = judged(pairs)
    assert found.p_two_sided == pytest.approx(mcnemar([[40, 4], [13, 9]], exact=True).pvalue)
    assert found.p_value == pytest.approx(found.p_two_sided / 2)
    assert (found.difference, found.better, found.worse, found.n) == pytest.approx((9 / 66, 13, 4, 66))
    assert found.discordance == pytest.approx(17 / 66)
    assert found.method == MCNEMAR


@QUICK
@given(binary)
def test_swapping_the_systems_mirrors_mcnemar(pairs: list[tuple[int, int]]) -> None:
    one, other = judged(pairs), judged([(b, a) for a, b in pairs])
    assert (one.difference, one.p_two_sided) == pytest.approx((-other.difference, other.p_two_sided))
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low))


@QUICK
@given(st.one_of(binary, graded))
def test_an_interval_holds_its_difference(pairs: list[tuple[float, float]]) -> None:
    found = judged(pairs)
    assert -1 - 1e-9 <= found.low <= found.difference <= found.high <= 1 + 1e-9
    assert 0 < found.p_value <= 1
    assert 0 < found.p_two_sided <= 1


def test_graded_scores_get_an_interval_wider_than_the_t_tests_of_a_large_sample() -> None:
    """Wider by at most 60%: what it costs that the level holds for any distribution."""
    rng = np.random.default_rng(2)
    a = rng.uniform(0.1, 0.9, 400)
    b = np.clip(a + rng.normal(0.03, 0.25, 400), 0, 1)
    found = compare(list(a), list(b), confidence=0.95, samples=4000, seed=1)
    limits = ttest_rel(b, a).confidence_interval(0.95)
    assert found.method == BETTING
    assert found.low < limits.low < limits.high < found.high
    assert found.high - found.low < 1.6 * (limits.high - limits.low)
    assert found.discordance == pytest.approx(np.mean((b - a) ** 2))


@pytest.mark.parametrize("rare", [0.01, 0.05, 0.1])
def test_one_answer_in_twenty_that_loses_much_is_no_gain(rare: float) -> None:
    """The mean difference is 0; flips of signs called it better in a third of such samples, for they are skewed."""
    rng = np.random.default_rng(3)
    lost = 0.5 * (1 - rare)
    seen = []
    for _ in range(400):
        b = np.where(rng.random(50) < rare, 0.5 - lost, 0.5 + lost * rare / (1 - rare))
        found = compare([0.5] * 50, list(b), confidence=0.95, samples=100, seed=1)
        seen.append((found.p_value < 0.05, found.low > 0, found.high < 0))
    assert np.mean(seen, axis=0).max() <= 0.05


def test_a_large_gain_of_graded_scores_is_shown() -> None:
    rng = np.random.default_rng(4)
    shown = []
    for _ in range(200):
        a = rng.uniform(0.2, 0.6, 100)
        b = np.clip(a + rng.normal(0.12, 0.3, 100), 0, 1)
        shown.append(compare(list(a), list(b), confidence=0.95, samples=100, seed=1).p_value < 0.05)
    assert np.mean(shown) > 0.8


def test_groups_of_one_row_and_equal_weights_change_nothing() -> None:
    rng = np.random.default_rng(5)
    a, b = (list(rng.integers(0, 2, 80).astype(float)) for _ in range(2))
    plain = compare(a, b, confidence=0.95, samples=300, seed=1)
    names = [str(n) for n in range(80)]
    assert compare(a, b, confidence=0.95, samples=300, seed=1, groups=names, weights=[0.5] * 80) == plain
    assert plain.method == MCNEMAR


@pytest.mark.slow
@pytest.mark.parametrize("graded", [False, True])
def test_rows_of_one_group_are_one_observation(graded: bool) -> None:
    """Bursts of five alike: taken as rows, equal systems would be told apart in a quarter of samples."""
    rng = np.random.default_rng(6)
    groups = [str(n // 5) for n in range(250)]
    better, effective = [], []
    for _ in range(400):
        change = np.repeat(rng.choice([-1.0, 0.0, 1.0], 50, p=[0.1, 0.8, 0.1]), 5) * (0.5 if graded else 1)
        a = np.where(change < 0, -change, np.where(change > 0, 0, 1.0))
        found = compare(list(a), list(a + change), confidence=0.95, samples=400, seed=1, groups=groups)
        better.append((found.p_value < 0.05, found.low > 0))
        effective.append(found.effective or 0.0)
    assert np.mean(better, axis=0).max() <= 0.065
    assert np.mean(effective) == pytest.approx(50, rel=0.1)


@pytest.mark.slow
def test_weights_of_known_propensities_undo_a_biased_sample() -> None:
    """Equal systems; where the challenger wins the label is drawn five times as often."""
    rng = np.random.default_rng(7)
    found, unweighted = [], []
    for _ in range(400):
        change = rng.choice([-1.0, 0.0, 1.0], 3000, p=[0.1, 0.8, 0.1])
        propensity = np.where(change > 0, 0.25, 0.05)
        drawn = rng.random(3000) < propensity
        d, w = change[drawn], 0.05 / propensity[drawn]
        a, b = list(np.maximum(-d, 0)), list(np.maximum(d, 0))
        one = compare(a, b, confidence=0.95, samples=400, seed=1, weights=list(w))
        found.append((one.difference, one.p_value < 0.05, one.low <= 0 <= one.high))
        unweighted.append(compare(a, b, confidence=0.95, samples=400, seed=1).difference)
        assert one.method == CLUSTERED and one.effective is not None
    mean, false, covered = np.mean(found, axis=0)
    assert abs(mean) < 0.005 < np.mean(unweighted)
    assert false <= 0.08 and covered >= 0.93


def test_equal_systems_do_not_differ() -> None:
    found = judged([(0.3, 0.3), (0.8, 0.8), (0.5, 0.5)])
    assert (found.difference, found.p_value, found.p_two_sided) == (0, 1, 1)
    assert found.low < 0 < found.high


def test_one_row_proves_nothing() -> None:
    assert judged([(0.0, 1.0)]).p_value == 0.5
    assert judged([(0.25, 0.75)]).p_value > 0.5


def test_scores_of_different_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="3 and 2"):
        compare([1, 0, 1], [1, 0], confidence=0.95, samples=10, seed=0)


@pytest.mark.parametrize("answers", [[1.0] * 60 + [0.0] * 31, [0.5] * 60 + [0.25] * 31])
def test_equal_answers_have_the_exact_interval(answers: list[float]) -> None:
    found = compare(answers, answers, confidence=0.95, samples=300, seed=5)
    assert (found.low, found.difference, found.high) == pytest.approx((-0.0397, 0.0, 0.0397), abs=5e-5)
    assert binomtest(0, 91, 0.5).proportion_ci(0.95, "exact").high == pytest.approx(found.high)


@pytest.mark.parametrize(
    ("worse", "better", "rows"), [(0.03, 0.0, 100), (0.03, 0.01, 122), (0.01, 0.01, 122), (0.05, 0.02, 60)]
)
def test_the_interval_holds_the_true_difference_as_often_as_it_says(worse: float, better: float, rows: int) -> None:
    """Tables of so few discordant rows that many have none at all; 85% of the others are right."""
    rng = np.random.default_rng(11)
    alike = 1 - worse - better
    tables = rng.multinomial(rows, [0.85 * alike, better, worse, 0.15 * alike], size=3000)
    held = []
    for both, only_b, only_a, neither in tables.tolist():
        low, high = newcombe(both, only_b, only_a, neither, 0.95)
        if not only_a and not only_b:
            high = unseen_ratio(rows, 0.95)
            low = -high
        held.append(low <= better - worse <= high)
    assert np.mean(held) > 0.94
