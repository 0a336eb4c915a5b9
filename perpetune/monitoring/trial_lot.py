"""The lot of a trial: which disagreements people are asked to label, each with the same known propensity."""

from __future__ import annotations

from functools import lru_cache

from perpetune.params import ReleaseParams
from perpetune.prediction_log.hash_sampling import hash_fraction
from perpetune.statistics.disagreements import guard_labels

FEWEST = 50  # compared requests before the ratio of disagreements is trusted
POWER = 0.9  # to show that an equal challenger is within the margin
MISSING = 1.1  # times as many as needed, because some labels never come


def is_drawn(version: str, request_id: str, propensity: float) -> bool:
    """Whether the lot of the trial of `version` has drawn the request, at whatever check it is looked at.

    A larger propensity draws the same requests and more, so that it may grow while the trial runs.
    """
    return hash_fraction(f"trial {version} {request_id}") < propensity


def wanted_propensity(
    requests: int, compared: int, differing: int, before: float, rules: ReleaseParams, alpha: float
) -> float:
    """The propensity with which the labels that the last look needs come together by `release.max_requests`.

    Of `requests` so far `compared` count, of which `differing` are answered differently. It never falls below `before`, and
    expects at most `release.labels` labels. `alpha` is the level of the last look.
    """
    if compared < FEWEST:
        return before
    ratio = (differing + 1) / (compared + 2)
    rows = max(round(rules.max_requests * compared / max(requests, compared), -1), compared)  # by the end
    needed = _needed(rows, round(ratio, 3), rules.margin, alpha)
    labels = rules.labels if needed is None else min(MISSING * needed, rules.labels)
    return max(before, min(1.0, labels / (ratio * rows)))


@lru_cache(maxsize=1024)
def _needed(rows: int, ratio: float, margin: float, alpha: float) -> int | None:
    """The labels that the last look needs; it is asked at every check, and searched for one by one."""
    return guard_labels(rows, max(ratio, 0.001), margin, alpha=alpha, power=POWER)
