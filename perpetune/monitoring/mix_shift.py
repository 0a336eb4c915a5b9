"""A fall of the mean score in two parts: the same requests are answered worse, or harder ones became more frequent.

Kitagawa, Components of a difference between two rates, JASA 50 (1955) 1168; in economics Oaxaca and Blinder (1973).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from perpetune.policy.retraining import MixShift

PRIOR = 1.0  # rows of the mean score that are added to each part: few rows of a part tell little of its score


@dataclass(frozen=True)
class Scored:
    """A score (0 to 1) of a part of the traffic: of a label, or of a time of day."""

    part: str
    score: float
    weight: float = 1.0


def decompose(by: str, before: Iterable[Scored], since: Iterable[Scored]) -> MixShift | None:
    """The fall from `before` to `since`; None if either is empty.

    `within` is the fall on the mix of `since`: how much worse each part is answered, parts weighted as they come now. The
    rest is the mix. A part that was not there before counts with the mean score before, so that what is new and answered
    badly is a fall within, which a refresh can repair.
    """
    then, now = _parts(before), _parts(since)
    if not then or not now:
        return None
    rows_then, rows_now = (sum(weight for weight, _ in each.values()) for each in (then, now))
    mean = sum(total for _, total in then.values()) / rows_then
    known = {part: (total + PRIOR * mean) / (weight + PRIOR) for part, (weight, total) in then.items()}
    expected = sum(weight * known.get(part, mean) for part, (weight, _) in now.items()) / rows_now
    observed = sum(total for _, total in now.values()) / rows_now

    def harm(part: str) -> float:
        shares = now.get(part, (0.0, 0.0))[0] / rows_now - then.get(part, (0.0, 0.0))[0] / rows_then
        return shares * (mean - known.get(part, mean))

    # The variance of the mean that is expected on the mix of `since`: that of so many rows.
    rows = 1 / sum(
        (weight / rows_now) ** 2 / (then[part][0] + PRIOR if part in then else rows_then)
        for part, (weight, _) in now.items()
    )
    return MixShift(
        by, within=expected - observed, mix=mean - expected, grew=max(sorted(now), key=harm), rows=min(rows, rows_then)
    )


def _parts(scored: Iterable[Scored]) -> dict[str, tuple[float, float]]:
    """Weight and weighted total of each part."""
    found: dict[str, tuple[float, float]] = defaultdict(lambda: (0.0, 0.0))
    for each in scored:
        weight, total = found[each.part]
        found[each.part] = weight + each.weight, total + each.weight * each.score
    return dict(found)
