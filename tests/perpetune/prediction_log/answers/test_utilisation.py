from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
import sqlalchemy

from perpetune.prediction_log.answers.utilisation import busy_seconds, utilisation
from perpetune.prediction_log.writes import record_rows
from perpetune.records import Failure, Prediction, Shadow

Make = Callable[..., Prediction]
START = datetime(2026, 5, 1, tzinfo=UTC)
TWO_DAYS = START + timedelta(days=2)


@pytest.mark.parametrize(
    ("starts", "ends", "busy"),
    [
        ([0.0, 10.0], [1.0, 12.0], 3.0),
        ([0.0, 1.0], [3.0, 2.0], 3.0),  # one within the other
        ([5.0, 0.0, 4.0], [7.0, 4.5, 5.5], 7.0),  # a chain, in any order
        ([0.0, 0.0], [1.0, 1.0], 1.0),
        ([2.0], [2.0], 0.0),
    ],
)
def test_overlapping_requests_keep_the_engine_busy_once(starts: list[float], ends: list[float], busy: float) -> None:
    assert busy_seconds(np.array(starts), np.array(ends)) == pytest.approx(busy)


def at(prediction: Make, number: int, seconds: float, took: float) -> Prediction:
    return prediction(number, time=START + timedelta(seconds=seconds), latency_ms=1000 * took)


def test_an_engine_that_worked_a_tenth_of_two_days(log: sqlalchemy.Engine, prediction: Make) -> None:
    hour = 3600
    record_rows(
        log, [at(prediction, 1, 0, 2 * hour), at(prediction, 2, hour, 1 * hour), at(prediction, 3, 9 * hour, hour)]
    )
    failed = Failure(
        id="f",
        time=START + timedelta(hours=20),
        task="reviews",
        version="1",
        route="champion",
        code="timeout",
        latency_ms=1000 * hour,
    )
    shadow = Shadow(
        request_id="chatcmpl-3",
        time=START + timedelta(hours=30),
        task="reviews",
        version="2",
        output="good",
        latency_ms=800 * hour,
    )
    record_rows(log, [failed, shadow])

    found = utilisation(log, "reviews", TWO_DAYS, 1.0, 30)

    assert found is not None
    assert (found.ratio, found.requests, found.days) == pytest.approx((4.8 / 48, 3, 2))
    assert found.requests_per_day == pytest.approx(1.5)
    assert utilisation(log, "another", TWO_DAYS, 1.0, 30) is None


def test_less_than_a_day_says_nothing(log: sqlalchemy.Engine, prediction: Make) -> None:
    record_rows(log, [at(prediction, 1, 0, 1)])
    assert utilisation(log, "reviews", START + timedelta(hours=23), 1.0, 30) is None


def test_only_the_days_asked_for_count(log: sqlalchemy.Engine, prediction: Make) -> None:
    record_rows(log, [at(prediction, 1, 0, 1), at(prediction, 2, 20 * 86_400, 1)])
    found = utilisation(log, "reviews", START + timedelta(days=40), 1.0, 30)
    assert found is not None and (found.requests, found.days) == (1, 20)


def test_a_sample_of_the_requests_tells_how_busy_all_of_them_keep_it(log: sqlalchemy.Engine, prediction: Make) -> None:
    random = np.random.default_rng(5)
    starts = np.sort(random.uniform(0, 2 * 86_400, 4000))
    rows = [at(prediction, number, start, 30.0) for number, start in enumerate(starts)]
    record_rows(log, [row for row, kept in zip(rows, random.random(4000) < 0.25, strict=True) if kept])
    true = busy_seconds(starts, starts + 30) / (2 * 86_400)

    found = utilisation(log, "reviews", TWO_DAYS, 0.25, 30)

    assert found is not None
    assert found.ratio == pytest.approx(true, abs=0.03)  # about a half, where the sample shows 0.16
    assert found.requests == pytest.approx(4000, rel=0.1)
