"""Evidence on the score without labels, and what labels say of its error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from perpetune.policy.verdict import Interval, Score
from perpetune.policy.wording import interval, points, score

EstimateMethod = Literal["confidence", "likelihood", "self-consistency", "judge"]

_BLIND: Mapping[EstimateMethod, str] = {
    "confidence": "It does not see answers that are sure and wrong, nor a change of the correct answers.",
    "likelihood": "Likelihood says how usual a text is to the model, not whether it is right: it does not see fluent errors, "
    "nor a change of the correct answers.",
    "self-consistency": "Self-consistency says whether the model answers alike again: it does not see errors that it makes "
    "every time, nor a change of the correct answers.",
    "judge": "A judge is a model too: it does not see what it does not know, prefers long and fluent answers, and misses a "
    "change of the correct answers that its rubric does not name.",
}


@dataclass(frozen=True)
class EstimateError:
    """The estimate minus the score, on the newest labels: `error` is above 0 if the estimate was too high.

    `estimated` and `labelled` are the two means. `corrected` is the window's estimate less the error; its interval has the
    uncertainty of both.
    """

    error: float
    interval: Interval
    labels: int
    corrected: Score
    estimated: float | None = None
    labelled: float | None = None


@dataclass(frozen=True)
class EstimatedFall:
    """The fall of the estimated score from the reference to the window.

    `fall` is reference minus window. `p_value` is one-sided for "the fall is more than `margin`"; it is below half of
    1 - level exactly if the interval lies above the margin. `error` is None if too few labels can tell it. `unreadable`
    counts replies, of all that were asked for, from which no score could be read.
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
    unreadable: int = 0

    @property
    def is_wrong(self) -> bool:
        """Whether labels show that it is off by more than the margin, by the interval of its error: then it decides nothing."""
        found = self.error
        return found is not None and (found.interval.low > self.margin or found.interval.high < -self.margin)

    @property
    def falls_for_sure(self) -> bool:
        """Whether the fall is beyond the margin even if the estimate is as much too low as labels leave possible."""
        if self.error is None or self.is_wrong:
            return False
        return self.interval.low + min(self.error.interval.low, 0.0) > self.margin

    @property
    def largest_error(self) -> float:
        """The largest error, in either direction, that the last labels leave possible; 1 without labels."""
        return 1.0 if self.error is None else max(abs(self.error.interval.low), abs(self.error.interval.high))


def most_trusted(estimates: Sequence[EstimatedFall]) -> EstimatedFall | None:
    """The estimate whose error labels bound best, the first of equals; None if there is none.

    What the estimates say of the window plays no part, so that none is chosen for its result.
    """
    return min(estimates, key=lambda each: each.largest_error, default=None)


def estimate_sentences(estimate: EstimatedFall) -> tuple[str, ...]:
    """The estimate with its error on labels, and what it cannot see."""
    return (f"{_sentence(estimate)}{_unreadable(estimate)}", _BLIND[estimate.method])


def estimate_line(estimate: EstimatedFall) -> str:
    """As "judge 78.1 (n=100); said 78.0 on the last 200 labels, which said 38.0: off by 40.0 points, decides nothing"."""
    found = estimate.error
    value = f"{estimate.method} {100 * estimate.window.mean:.1f} (n={estimate.window.rows})"
    if found is None:
        return f"{value}; too few labels to say how wrong it is"
    trust = ", decides nothing" if estimate.is_wrong else ""
    if found.estimated is None or found.labelled is None:
        return f"{value}; off by {points(abs(found.error))} on the last {found.labels} labels{trust}"
    return (
        f"{value}; said {100 * found.estimated:.1f} on the last {found.labels} labels, which said "
        f"{100 * found.labelled:.1f}: off by {points(abs(found.error))}{trust}"
    )


_ESTIMATE: TypeAdapter[EstimatedFall] = TypeAdapter(EstimatedFall)


def estimates_in(evidence: Mapping[str, Any]) -> list[EstimatedFall]:
    """All estimates of a check's evidence, the one that may decide first; [] if it has none or they are of another release."""
    others = evidence.get("other_estimates") or {}
    found = [evidence.get("estimate"), *others.values()]
    try:
        return [_ESTIMATE.validate_python(each) for each in found if each]
    except ValidationError:
        return []


def _sentence(estimate: EstimatedFall) -> str:
    return f"The score estimated from {estimate.method} is {score(estimate.window)}; {_error(estimate)}"


def _error(estimate: EstimatedFall) -> str:
    found = estimate.error
    if found is None:
        return "there are too few labels to say how wrong it is."
    side = "high" if found.error >= 0 else "low"
    said = ""
    if found.estimated is not None and found.labelled is not None:
        said = f"it said {100 * found.estimated:.1f} and labels said {100 * found.labelled:.1f}: "
    wrong = f" That is shown to be more than the margin of {points(estimate.margin)}, so that it decides nothing."
    return (
        f"on the last {found.labels} labels {said or 'it was '}{points(abs(found.error))} too {side} "
        f"({interval(found.interval)}), and corrected by that it is {score(found.corrected)}."
        f"{wrong if estimate.is_wrong else ''}"
    )


def _unreadable(estimate: EstimatedFall) -> str:
    if not estimate.unreadable:
        return ""
    replies = "reply has" if estimate.unreadable == 1 else "replies have"
    return f" {estimate.unreadable} {replies} no readable score and count nowhere."
