"""Which of two systems answers faster: both are asked the same rows in turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from perpetune.params import EvaluateParams
from perpetune.statistics.estimate import Estimate, Floats

Ask = Callable[[int], object]

SECONDS = 10.0  # beyond the requests that a measurement needs, it takes no longer than this
ROUNDS = 3


@dataclass(frozen=True)
class LatencyPair:
    """Seconds that each request took, alone and one after the other: of the one system and of the other.

    They were made of so many different rows; if these are fewer, rows were asked again.
    """

    theirs: tuple[float, ...]
    ours: tuple[float, ...]
    rows: int


def measure_interleaved(theirs: Ask, ours: Ask, rows: int, least: int, seconds: float = SECONDS) -> LatencyPair:
    """Ask both of row 0, 1, ..., so that whatever slows the machine down slows both; who is first alternates.

    At least `least` requests are timed, from the first row on again if there are no more. Row 0 is asked once before,
    since what is read for the first time takes longer. If time is left, all are asked again, up to twice, and the fastest
    of each counts: what else runs on the machine only ever adds.
    """
    for ask in (theirs, ours):
        ask(0)
    until, count = time.monotonic() + seconds, max(rows, least)
    fastest: dict[int, tuple[float, float]] = {}
    for turn in range(ROUNDS * count):
        if turn >= least and time.monotonic() > until:
            break
        lap, request = divmod(turn, count)
        one, other = _one_turn(theirs, ours, request % rows, swapped=(request + lap) % 2 == 1)
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


def slowdown(pace: LatencyPair, params: EvaluateParams) -> Estimate:
    """How many times their 95th percentile of seconds an answer ours is."""
    return _ratio(pace, lambda seconds: np.quantile(seconds, 0.95, axis=-1), params)


def cost_ratio(pace: LatencyPair, params: EvaluateParams) -> Estimate:
    """How many times their dollars a request ours takes: mean seconds, as both run on the same machine."""
    return _ratio(pace, lambda seconds: seconds.mean(axis=-1), params)


def _ratio(pace: LatencyPair, statistic: Callable[[Floats], Floats], params: EvaluateParams) -> Estimate:
    """A ratio of two statistics of the same requests, with a percentile bootstrap over them."""
    theirs, ours = np.array(pace.theirs), np.array(pace.ours)
    drawn = np.random.default_rng(params.seed).integers(0, len(ours), (params.bootstrap_samples, len(ours)))
    value = float(statistic(ours) / statistic(theirs))
    tail = (1 - params.confidence) / 2
    low, high = np.quantile(statistic(ours[drawn]) / statistic(theirs[drawn]), [tail, 1 - tail])
    return Estimate(value, min(value, float(low)), max(value, float(high)), len(ours))


def sample_positions(rows: Sequence[object], count: int, seed: int) -> list[int]:
    """The places of at most `count` rows, from all over."""
    return np.random.default_rng(seed).permutation(len(rows))[:count].tolist()  # type: ignore[no-any-return]
