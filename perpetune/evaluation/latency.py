"""Latency of two systems, measured in alternation on the same rows."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from perpetune.params import EvaluateParams
from perpetune.statistics.distributions import t_quantile
from perpetune.statistics.estimate import Estimate, Floats

Ask = Callable[[int], object]

SECONDS = 10.0  # the time limit beyond the required requests
ROUNDS = 3


@dataclass(frozen=True)
class LatencyPair:
    """Seconds of each request, sent one at a time, for both systems.

    `rows` is the number of different rows; if it is smaller than the number of requests, rows were repeated: request n is
    of row n modulo `rows`.
    """

    theirs: tuple[float, ...]
    ours: tuple[float, ...]
    rows: int


def measure_interleaved(theirs: Ask, ours: Ask, rows: int, min_requests: int, seconds: float = SECONDS) -> LatencyPair:
    """Send rows 0, 1, ... to both systems in alternation, so that other load slows both equally.

    At least `min_requests` are timed, repeating rows if needed, after one warm-up request. In the remaining time all
    are repeated up to twice, and the fastest of each counts, because other load only adds time.
    """
    for ask in (theirs, ours):
        ask(0)
    until, count = time.monotonic() + seconds, max(rows, min_requests)
    fastest: dict[int, tuple[float, float]] = {}
    for turn in range(ROUNDS * count):
        if turn >= min_requests and time.monotonic() > until:
            break
        round_number, request = divmod(turn, count)
        one, other = _one_turn(theirs, ours, request % rows, swapped=(request + round_number) % 2 == 1)
        before = fastest.get(request, (one, other))
        fastest[request] = min(one, before[0]), min(other, before[1])
    pairs = fastest.values()
    return LatencyPair(tuple(one for one, _ in pairs), tuple(other for _, other in pairs), min(rows, len(pairs)))


def _one_turn(theirs: Ask, ours: Ask, row: int, *, swapped: bool) -> tuple[float, float]:
    if swapped:
        second = _timed(ours, row)
        return _timed(theirs, row), second
    first = _timed(theirs, row)
    return first, _timed(ours, row)


def _timed(ask: Ask, row: int) -> float:
    began = time.perf_counter()
    ask(row)
    return time.perf_counter() - began


def slowdown(latencies: LatencyPair, params: EvaluateParams) -> Estimate:
    """Our 95th percentile of seconds divided by theirs."""
    return _ratio(latencies, lambda seconds: np.quantile(seconds, 0.95, axis=-1), params)


def cost_ratio(latencies: LatencyPair, params: EvaluateParams) -> Estimate:
    """Our cost per request divided by theirs: the ratio of mean seconds, because both use the same machine."""
    return _ratio(latencies, lambda seconds: seconds.mean(axis=-1), params)


def _ratio(latencies: LatencyPair, statistic: Callable[[Floats], Floats], params: EvaluateParams) -> Estimate:
    """The ratio of a statistic, with a bootstrap interval over rows: all requests of a row are drawn together.

    Requests of one row take about as long, so that they say little more than one (Davison & Hinkley, Bootstrap Methods and
    their Application, 1997, 3.8). With few rows percentiles are too narrow; they are taken as much farther out as Student's
    t is than the normal distribution (Hesterberg, The American Statistician 69 (2015) 371). `n` are the rows.
    """
    theirs, ours = np.array(latencies.theirs), np.array(latencies.ours)
    drawn = _drawn_rows(len(ours), latencies.rows, params)
    ratios = statistic(ours[drawn]) / statistic(theirs[drawn])
    value = float(statistic(ours) / statistic(theirs))
    tail = _expanded_tail(latencies.rows, (1 - params.confidence) / 2)
    low, high = np.quantile(ratios, [tail, 1 - tail])
    return Estimate(value, min(value, float(low)), max(value, float(high)), latencies.rows)


def _drawn_rows(requests: int, rows: int, params: EvaluateParams) -> NDArray[np.intp]:
    """Places of requests, (samples, requests): rows drawn with replacement, each with its requests in turn.

    If rows were repeated unequally often, the last turn is of the rows that are drawn first.
    """
    chance = np.random.default_rng(params.seed)
    of_row = chance.integers(0, rows, (params.bootstrap_samples, rows))
    turns = -(-requests // rows)
    places = (of_row[:, None, :] + rows * np.arange(turns)[:, None]).reshape(len(of_row), -1)[:, :requests]
    return np.asarray(np.where(places < requests, places, places - rows), dtype=np.intp)


def _expanded_tail(rows: int, tail: float) -> float:
    if rows < 2:
        return tail
    return NormalDist().cdf(math.sqrt(rows / (rows - 1)) * t_quantile(tail, rows - 1))


def sample_positions(rows: Sequence[object], count: int, seed: int) -> list[int]:
    """A random sample of at most `count` row indices."""
    return np.random.default_rng(seed).permutation(len(rows))[:count].tolist()  # type: ignore[no-any-return]
