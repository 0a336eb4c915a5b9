"""Evidence on accuracy without labels, and what labels say of its error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from perpetune.policy.verdict import Interval, Score
from perpetune.policy.wording import interval, points, score

EstimateMethod = Literal["confidence", "likelihood"]

_BLIND = {
    "confidence": "It does not see answers that are sure and wrong, nor a change of the correct answers.",
    "likelihood": "Likelihood says how usual a text is to the model, not whether it is right: it does not see fluent errors, "
    "nor a change of the correct answers.",
}


@dataclass(frozen=True)
class EstimateError:
    """The estimate minus the score, on the newest labels: `error` is above 0 if the estimate was too high.

    `corrected` is the window's estimate less the error; its interval has the uncertainty of both.
    """

    error: float
    interval: Interval
    labels: int
    corrected: Score


@dataclass(frozen=True)
class EstimatedFall:
    """The fall of the estimated accuracy from the reference to the window.

    `fall` is reference minus window. `p_value` is one-sided for "the fall is more than `margin`"; it is below half of
    1 - level exactly if the interval lies above the margin. `error` is None if too few labels can tell it.
    """

    window: Score
    reference: Score
    fall: float
    interval: Interval
    margin: float
    p_value: float
    test: str
    method: EstimateMethod = "confidence"
    error: EstimateError | None = None

    @property
    def holds(self) -> bool:
        """Whether labels show the estimate to be right within the margin, on average."""
        return self.error is not None and abs(self.error.error) <= self.margin


def estimate_sentences(estimate: EstimatedFall) -> tuple[str, ...]:
    """The estimate with its error on labels, and what it cannot see."""
    return (
        f"The score estimated from {estimate.method} is {score(estimate.window)}; {_error(estimate)}",
        _BLIND[estimate.method],
    )


def _error(estimate: EstimatedFall) -> str:
    found = estimate.error
    if found is None:
        return "there are too few labels to say how wrong it is."
    side = "high" if found.error >= 0 else "low"
    return (
        f"on the last {found.labels} labels it was {points(abs(found.error))} too {side} ({interval(found.interval)}), and "
        f"corrected by that it is {score(found.corrected)}."
    )
