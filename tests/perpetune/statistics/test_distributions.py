from __future__ import annotations

import pytest
from scipy.stats import beta, binomtest, t

from perpetune.statistics.distributions import beta_quantile, sign_test, t_quantile

PROBABILITIES = (1e-8, 0.025, 0.4, 0.975, 1 - 1e-8)


@pytest.mark.parametrize("probability", PROBABILITIES)
def test_quantiles_are_those_of_scipys_distributions(probability: float) -> None:
    for freedom in (1, 3.7, 30, 4000):
        assert t_quantile(probability, freedom) == pytest.approx(t.ppf(probability, freedom), rel=1e-9)
    for successes, failures in ((1, 50), (51, 1), (20, 4000)):
        expected = beta.ppf(probability, successes, failures)
        assert beta_quantile(probability, successes, failures) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("rows", [1, 2, 9, 700])
def test_the_sign_test_is_the_exact_binomial_one(rows: int) -> None:
    for up in {0, 1, rows // 2, rows}:
        assert sign_test(up, rows) == pytest.approx(binomtest(up, rows, 0.5, "greater").pvalue, rel=1e-9)
        two_sided = min(1.0, 2 * sign_test(max(up, rows - up), rows))
        assert two_sided == pytest.approx(binomtest(up, rows, 0.5).pvalue, rel=1e-9)
