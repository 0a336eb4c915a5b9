from __future__ import annotations

import pytest

from perpetune.gateway.middleware.rate_limit import RateLimit


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_tenth_of_a_minute_at_once_and_then_the_rate() -> None:
    clock = Clock()
    limit = RateLimit(60, clock=clock)
    assert [limit.take("a") for _ in range(6)] == [0.0] * 6
    assert limit.take("a") == pytest.approx(1.0)
    assert limit.take("a") == pytest.approx(1.0)  # asking in vain costs nothing
    clock.now += 1.0
    assert limit.take("a") == 0.0
    assert limit.take("a") > 0
    clock.now += 60
    assert [limit.take("a") for _ in range(6)] == [0.0] * 6
    assert limit.take("a") > 0


def test_in_the_long_run_the_rate_holds() -> None:
    clock = Clock()
    limit = RateLimit(30, clock=clock)
    taken = 0
    for _ in range(6000):  # ten minutes, asked ten times a second
        taken += limit.take("a") == 0.0
        clock.now += 0.1
    assert 300 <= taken <= 303  # 30 a minute, and the 3 of a full bucket at the start


def test_a_rate_below_ten_a_minute_lets_one_through_at_once() -> None:
    clock = Clock()
    limit = RateLimit(2, clock=clock)
    assert limit.take("a") == 0.0
    assert limit.take("a") == pytest.approx(30.0)
    clock.now += 30
    assert limit.take("a") == 0.0


def test_callers_do_not_share_a_bucket() -> None:
    limit = RateLimit(1, clock=Clock())
    assert limit.take("a") == 0.0
    assert limit.take("b") == 0.0
    assert limit.take("a") > 0


def test_memory_is_bounded_and_those_seen_last_are_kept() -> None:
    limit = RateLimit(1, callers=100, clock=Clock())
    for number in range(1000):
        assert limit.take(f"caller {number}") == 0.0
    assert len(limit) == 100
    assert limit.take("caller 999") > 0
    assert limit.take("caller 0") == 0.0  # long forgotten
