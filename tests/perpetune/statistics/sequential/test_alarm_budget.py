from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from perpetune.statistics.sequential.alarm_budget import (
    LEAST_LEVEL,
    MOST_SAVED,
    AlarmBudget,
    affordable,
    refilled,
    spent,
)

START = datetime(2025, 1, 1, tzinfo=UTC)


def levels(every: timedelta, days: float, per_year: float = 1.0) -> list[float]:
    """The levels of all tests of a monitor that checks at these intervals, with new requests each time."""
    budget, found = AlarmBudget(), []
    for number in range(int(timedelta(days=days) / every)):
        budget = refilled(budget, START + number * every, per_year)
        if (level := affordable(budget, per_year)) is not None:
            found.append(level)
            budget = spent(budget, level)
    return found


@pytest.mark.parametrize("every", [timedelta(minutes=5), timedelta(hours=1), timedelta(days=1), timedelta(days=7)])
@pytest.mark.parametrize("per_year", [0.2, 1.0, 12.0])
def test_the_levels_of_a_year_add_up_to_the_rate(every: timedelta, per_year: float) -> None:
    """However often it is checked: the first year has the budget of a month more, which it begins with."""
    assert sum(levels(every, 365, per_year)) <= per_year * (1 + MOST_SAVED) + 1e-9
    assert sum(levels(every, 10 * 365, per_year)) <= per_year * (10 + MOST_SAVED) + 1e-9


def test_a_rare_test_has_a_higher_level_than_a_frequent_one() -> None:
    hourly, daily = levels(timedelta(hours=1), 365), levels(timedelta(days=1), 365)
    assert hourly[0] == daily[0] == pytest.approx(MOST_SAVED / 30)
    assert daily[-1] == pytest.approx(1 / 365, rel=0.02) and min(hourly) >= LEAST_LEVEL
    assert 1000 < len(hourly) < 2500, "four to six tests a day, once the budget of the beginning is spent"


def test_clocks_that_go_back_neither_fill_nor_empty_it() -> None:
    before = AlarmBudget(0.01, START)
    assert refilled(before, START - timedelta(days=3), 1.0) == before


def test_no_test_is_at_a_level_at_which_chance_alone_alarms() -> None:
    """One alarm a day is allowed: a part of what is saved is then more than 1, which every window would pass."""
    assert max(levels(timedelta(days=1), 30, 365.0)) <= 0.05
