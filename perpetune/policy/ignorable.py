"""Whether labels that came unasked may judge a version: if how they were selected does not depend on what they say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Unasked = Literal["test", "trust", "ignore"]


@dataclass(frozen=True)
class Selection:
    """What is known of the requests of the time in which unasked labels came.

    - `labelled`, `unlabelled`: expected accuracies (calibrated confidence, 0 to 1) of requests with an unasked label, and
      of those without any; None for answers without confidence.
    - `by_lot`, `unasked`: scores (0 to 1) of answers labelled by lot, with their weights, and unasked.
    """

    labelled: Sequence[float | None]
    unlabelled: Sequence[float | None]
    by_lot: Sequence[tuple[float, float]]
    unasked: Sequence[float]


@dataclass(frozen=True)
class Ignorability:
    """Whether unasked labels decide, how many there are, and why, in one sentence."""

    decides: bool
    unasked: int
    reason: str


def ignorable(selection: Selection, margin: float, setting: Unasked) -> Ignorability:
    """Whether unasked labels decide: they bias the mean score by less than a part of `margin`."""
    count = len(selection.unasked)
    return Ignorability(setting != "ignore", count, f"{count} labels came unasked.")
