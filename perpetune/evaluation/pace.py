"""Which of two systems answers faster: both are asked the same rows in turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from perpetune.evaluation.estimate import Estimate, Floats
from perpetune.params import EvaluateParams

# Each row is asked twice of each system and the shorter time counts: what else the machine did meanwhile only adds.
ROUNDS = 2
# A measurement takes no longer than this, where these rows at least are asked.
SECONDS = 15.0
LEAST_ROWS = 5

Ask = Callable[[int], object]


@dataclass(frozen=True)
class Pace:
    """Seconds that each row took, alone and one after the other: of the one system and of the other."""

    theirs: tuple[float, ...]
    ours: tuple[float, ...]


def in_turns(theirs: Ask, ours: Ask, rows: int, seconds: float = SECONDS) -> Pace:
    """Ask both of row 0, 1, ..., so that whatever slows the machine down slows both; who is first alternates.

    Row 0 is asked once before, since what is read for the first time takes longer.
    """
    found: list[tuple[float, float]] = []
    for ask in (theirs, ours):
        ask(0)
    until = time.monotonic() + seconds
    for row in range(rows):
        if row >= LEAST_ROWS and time.monotonic() > until:
            break
        rounds = [_one_round(theirs, ours, row, swapped=turn % 2 == 1) for turn in range(ROUNDS)]
        found.append((min(one for one, _ in rounds), min(other for _, other in rounds)))
    return Pace(tuple(one for one, _ in found), tuple(other for _, other in found))


def _one_round(theirs: Ask, ours: Ask, row: int, *, swapped: bool) -> tuple[float, float]:
    if swapped:
        second = _timed(ours, row)
        return _timed(theirs, row), second
    first = _timed(theirs, row)
    return first, _timed(ours, row)


def _timed(ask: Ask, row: int) -> float:
    began = time.perf_counter()
    ask(row)
    return time.perf_counter() - began


def slowdown(pace: Pace, params: EvaluateParams) -> Estimate:
    """How many times their 95th percentile of seconds an answer ours is."""
    return _ratio(pace, lambda seconds: np.quantile(seconds, 0.95, axis=-1), params)


def cost_ratio(pace: Pace, params: EvaluateParams) -> Estimate:
    """How many times their dollars a request ours takes: mean seconds, as both run on the same machine."""
    return _ratio(pace, lambda seconds: seconds.mean(axis=-1), params)


def _ratio(pace: Pace, statistic: Callable[[Floats], Floats], params: EvaluateParams) -> Estimate:
    """A ratio of two statistics of the same rows, with a percentile bootstrap over the rows."""
    theirs, ours = np.array(pace.theirs), np.array(pace.ours)
    drawn = np.random.default_rng(params.seed).integers(0, len(ours), (params.bootstrap_samples, len(ours)))
    value = float(statistic(ours) / statistic(theirs))
    tail = (1 - params.confidence) / 2
    low, high = np.quantile(statistic(ours[drawn]) / statistic(theirs[drawn]), [tail, 1 - tail])
    return Estimate(value, min(value, float(low)), max(value, float(high)), len(ours))


def chosen(rows: Sequence[object], count: int, seed: int) -> list[int]:
    """The places of at most `count` rows, from all over."""
    return np.random.default_rng(seed).permutation(len(rows))[:count].tolist()  # type: ignore[no-any-return]
