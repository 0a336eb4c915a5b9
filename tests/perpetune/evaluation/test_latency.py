from __future__ import annotations

import time

import numpy as np
import pytest

from perpetune.evaluation.latency import LatencyPair, cost_ratio, measure_interleaved, slowdown
from perpetune.params import EvaluateParams


def test_a_ratio_lies_within_its_interval_and_turns_over_with_the_sides(params: EvaluateParams) -> None:
    seconds = tuple(1.0 + 0.01 * (n * 7 % 40) for n in range(40))
    slower = LatencyPair(seconds, tuple(2 * each for each in seconds), 40)
    for measure in (slowdown, cost_ratio):
        found = measure(slower, params)
        assert found.value == pytest.approx(2) and found.low <= found.value <= found.high
        assert found.low == pytest.approx(2), "rows that are all twice as slow leave no doubt"
        assert measure(LatencyPair(slower.ours, slower.theirs, 40), params).value == pytest.approx(0.5)


def test_one_long_answer_counts_for_cost_and_leaves_latency_in_doubt(params: EvaluateParams) -> None:
    latencies = LatencyPair((1.0,) * 40, (*(1.0,) * 39, 41.0), 40)
    assert cost_ratio(latencies, params).value == pytest.approx(2)
    assert slowdown(latencies, params).low == pytest.approx(1)


def test_what_takes_twice_as_long_is_seen() -> None:
    latencies = measure_interleaved(lambda _: time.sleep(0.01), lambda _: time.sleep(0.02), 6, 6)
    assert len(latencies.ours) == 6
    assert 1.5 < sum(latencies.ours) / sum(latencies.theirs) < 2.5


def test_a_measurement_ends_in_time_with_as_many_rows_as_it_needs() -> None:
    asked: list[int] = []
    latencies = measure_interleaved(asked.append, asked.append, 1000, 30, seconds=0.0)
    assert len(latencies.theirs) == len(latencies.ours) == 30
    assert (max(asked), latencies.rows) == (29, 30)


def test_fewer_rows_are_asked_again_until_there_are_enough_requests() -> None:
    asked: list[int] = []
    latencies = measure_interleaved(lambda _: None, asked.append, 6, 30)
    assert (len(latencies.ours), latencies.rows) == (30, 6)
    assert {row: asked[1:].count(row) for row in range(6)} == dict.fromkeys(range(6), 3 * 5)


def test_a_pause_of_the_machine_is_not_held_against_the_one_whom_it_met() -> None:
    asked: list[int] = []

    def paused(row: int) -> None:
        asked.append(row)
        time.sleep(0.2 if len(asked) in range(2, 6) else 0.002)

    latencies = measure_interleaved(lambda _: time.sleep(0.002), paused, 10, 10)
    assert max(latencies.ours) < 0.1, "four of ten requests were paused the first time"


def repeated(rng: np.random.Generator, rows: int, times: int, slower: float) -> LatencyPair:
    """Rows of which each takes its own time, and for us `slower` times as long up to a factor of the row's own."""
    theirs = rng.lognormal(0, 0.3, rows)
    ours = slower * theirs * rng.lognormal(0, 0.4, rows)
    noise = rng.lognormal(0, 0.02, (2, times, rows))
    return LatencyPair(tuple((theirs * noise[0]).ravel()), tuple((ours * noise[1]).ravel()), rows)


def test_asking_the_same_rows_again_leaves_as_much_doubt(params: EvaluateParams) -> None:
    rng = np.random.default_rng(3)
    once = repeated(rng, 12, 1, 2.0)
    often = LatencyPair(once.theirs * 25, once.ours * 25, 12)
    for measure in (slowdown, cost_ratio):
        first, again = measure(once, params), measure(often, params)
        assert again.n == 12 and again.high - again.low == pytest.approx(first.high - first.low, rel=0.05)


def test_a_row_that_was_asked_once_more_than_others_is_counted(params: EvaluateParams) -> None:
    """Seven requests of three rows: the first one was asked three times."""
    found = cost_ratio(LatencyPair((1.0,) * 7, (2.0, 3.0, 4.0, 2.0, 3.0, 4.0, 2.0), 3), params)
    assert found.value == pytest.approx(20 / 7) and (found.low, found.high) == (2.0, 4.0)


@pytest.mark.slow
def test_the_interval_covers_the_ratio_although_rows_were_repeated(params: EvaluateParams) -> None:
    """The ratio of mean seconds of all such rows; an interval over requests, as if each were of its own row, seldom does."""
    rng, fewer = np.random.default_rng(4), params.model_copy(update={"bootstrap_samples": 400})
    true = 2.0 * np.exp(0.4**2 / 2)
    measured = [repeated(rng, 20, 5, 2.0) for _ in range(300)]
    by_row = [cost_ratio(each, fewer) for each in measured]
    by_request = [cost_ratio(LatencyPair(each.theirs, each.ours, len(each.ours)), fewer) for each in measured]
    assert np.mean([each.low <= true <= each.high for each in by_row]) >= 0.9
    assert np.mean([each.low <= true <= each.high for each in by_request]) <= 0.7
