"""Sampling of requests to label, each with a known propensity, so that scores weighted by its inverse are unbiased.

The propensity of a part of the requests grows with the model's doubt (active statistical inference: Zrnic & Candès, ICML
2024), mixed with an equal one, which bounds the weights. The sample is systematic: it has the propensities exactly, a
fixed size, and is spread over answers and inputs (Madow, Annals of Mathematical Statistics 1949;20:333). See
docs/decisions/0026-how-labels-came.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np

from perpetune.curation.text import normalised
from perpetune.monitoring.window import Window, current_frame
from perpetune.prediction_log.hash_sampling import hash_fraction
from perpetune.prediction_log.labels.requests import Drawn, LabelReason

MOST = 0.8  # propensity in one draw for doubt: what it leaves out stands for all that are like it
MAX_WEIGHT = 10.0
_STEPS = 60  # of bisection: more than the bits of a float


@dataclass(frozen=True)
class Candidate:
    """An answered request that no lot has drawn. `label` is the predicted label of a classification task, `doubt` is 0 to 1.

    `undrawn` is the probability with which earlier draws for doubt left it out; `labelled` says that its label came
    already: it takes part as all others, or else a lot would lack the answers that people complained of.
    """

    request_id: str
    input: str
    label: str | None
    doubt: float
    undrawn: float = 1.0
    labelled: bool = False


@dataclass(frozen=True)
class Draw:
    """The requests that were drawn, and for each candidate the probability that no draw for doubt has drawn it."""

    drawn: tuple[Drawn, ...] = ()
    undrawn: Mapping[str, float] = field(default_factory=dict)


def candidates(window: Window, undrawn: Mapping[str, float]) -> list[Candidate]:
    """The window's requests that `undrawn` names. Doubt is 1 - confidence, or the ratio of words not in the reference."""
    unseen = current_frame(window)["unseen word ratio"]
    return [
        Candidate(
            row.id,
            row.input,
            row.output.strip() if window.kind == "classification" else None,
            float(ratio) if row.confidence is None else 1 - row.confidence,
            undrawn[row.id],
            row.label is not None,
        )
        for row, ratio in zip(window.predictions, unseen, strict=True)
        if row.id in undrawn
    ]


def draw(candidates: Sequence[Candidate], count: int, random_ratio: float, key: str) -> Draw:
    """Draw `count` of the candidates that are not labelled, and of the labelled ones at the same rate.

    `random_ratio` of them are drawn each with the same propensity, and have the reason "lot". The propensity of the others
    is in proportion to their doubt, which equal inputs share, and their reason "doubt". With a ratio of 1 there is no doubt
    in it.

    A request's propensity is the probability to be drawn now and by no draw before; its weight is the ratio drawn over
    that. So the weighted labels of each draw are an unbiased sample of all requests, and count 1 on average. `key` is
    of this draw alone: the same key draws the same requests, in whatever order they come.
    """
    if not candidates or count <= 0:
        return Draw()
    rows = sorted(
        candidates, key=lambda each: (each.labelled, each.label or "", normalised(each.input), each.request_id)
    )
    undrawn = np.array([each.undrawn for each in rows])
    alike = Counter(normalised(each.input) for each in rows)
    mixed = _mix(np.array([each.doubt / alike[normalised(each.input)] for each in rows]), random_ratio)
    wanted = np.array([not each.labelled for each in rows])
    now = _propensities(mixed / undrawn, wanted if wanted.any() else ~wanted, count, 1.0 if random_ratio == 1 else MOST)
    propensity = undrawn * now
    weight = np.minimum(now.sum() / (1 / undrawn).sum() / propensity, MAX_WEIGHT)
    drawn = [
        Drawn(
            rows[place].request_id,
            _reason(rows[place].request_id, random_ratio / mixed[place], key),
            float(propensity[place]),
            float(weight[place]),
        )
        for place in _systematic(now, hash_fraction(key))
    ]
    left = undrawn if random_ratio == 1 else undrawn * (1 - now)
    return Draw(tuple(drawn), {each.request_id: float(left[place]) for place, each in enumerate(rows)})


def draw_key(seed: int, time: datetime) -> str:
    """A key of a draw at this time."""
    return f"{seed} {time.isoformat()}"


def _mix(doubt: np.ndarray, random_ratio: float) -> np.ndarray:
    """The propensity of each as a multiple of the mean one: an equal part, and one in proportion to doubt."""
    mean = float(doubt.mean())
    in_proportion = doubt / mean if mean > 0 else np.ones_like(doubt)
    return random_ratio + (1 - random_ratio) * in_proportion


def _propensities(shape: np.ndarray, wanted: np.ndarray, count: int, most: float) -> np.ndarray:
    """In proportion to `shape` and at most `most`; those of the `wanted` rows have the sum `count`, if that can be."""
    if count >= most * wanted.sum():
        return np.full(len(shape), most)

    def total(scale: float) -> float:
        return float(np.minimum(scale * shape[wanted], most).sum())

    return np.minimum(_solve(total, count, most / float(shape.min())) * shape, most)


def _solve(rising: Callable[[float], float], wanted: float, high: float) -> float:
    low = 0.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < wanted else (low, middle)
    return high


def _systematic(propensities: np.ndarray, start: float) -> list[int]:
    """The places drawn: those in which the sum of propensities, begun at `start`, passes a whole number."""
    steps = np.floor(np.concatenate([[0.0], np.cumsum(propensities)]) + start)
    return [int(place) for place in np.flatnonzero(np.diff(steps) > 0)]


def _reason(request_id: str, lot: float, key: str) -> LabelReason:
    """A request that was drawn for either reason has the one that chance names, with the odds of the two."""
    return "lot" if hash_fraction(f"reason {key} {request_id}") < lot else "doubt"
