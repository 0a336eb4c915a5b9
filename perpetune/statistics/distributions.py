"""Quantiles and tails by `scipy.special`: importing `scipy.stats` takes half a second, and every command would wait for it."""

from __future__ import annotations

from scipy.special import bdtrc, betaincinv, stdtrit


def t_quantile(probability: float, freedom: float) -> float:
    """Of Student's distribution."""
    return float(stdtrit(freedom, probability))


def beta_quantile(probability: float, successes: float, failures: float) -> float:
    """Of the beta distribution with these parameters."""
    return float(betaincinv(successes, failures, probability))


def sign_test(up: int, rows: int) -> float:
    """The probability that at least `up` of `rows` fair coins show heads."""
    return float(bdtrc(up - 1, rows, 0.5)) if up else 1.0
