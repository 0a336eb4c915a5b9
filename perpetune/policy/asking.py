"""Whether labels are to be asked for, or a refresh is due, where too few labels tell how good the champion is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from perpetune.params import WatchParams
from perpetune.policy.phrases import against_level, interval, points, score
from perpetune.policy.retraining import DriftEvidence
from perpetune.policy.verdict import Interval, Score

Step = Literal["nothing", "ask", "retrain"]


@dataclass(frozen=True)
class EstimatedFall:
    """How far the accuracy that the champion's confidence implies has fallen below that on the reference.

    `fall` is reference minus window; `p_value` is one-sided, "the fall is more than `margin`".
    """

    window: Score
    reference: Score
    fall: float
    interval: Interval
    margin: float
    p_value: float
    test: str


@dataclass(frozen=True)
class Asking:
    """What to do without labels, and why: the first sentence is the decisive one."""

    step: Step
    reasons: tuple[str, ...]


def without_labels(
    labelled: int, estimate: EstimatedFall | None, drift: DriftEvidence | None, rules: WatchParams
) -> Asking:
    """Decide between nothing, asking for labels and, where the setting says so, a refresh.

    Both must speak: the estimated accuracy has fallen by more than the margin (one-sided, at `alpha`), and inputs or
    predictions drifted. Where answers carry no confidence, and so there is no estimate, drift asks for labels at most:
    alone it never retrains. Where `labelled` answers, as many as a verdict needs, were judged in this look, they have
    spoken and no guess is asked.
    """
    if labelled >= rules.min_labels or rules.without_labels == "nothing" or not _drifted(drift):
        return Asking("nothing", ())
    if estimate is None:
        return Asking("ask", (_UNKNOWN,))
    if not estimate.p_value < rules.alpha:
        return Asking("nothing", (f"Confidence shows no such fall: {_said(estimate, rules)}.",))
    return Asking(
        rules.without_labels,
        (
            f"The accuracy estimated from confidence has fallen by more than the margin of {points(estimate.margin)}, "
            f"and traffic drifted: {_said(estimate, rules)}.",
            _ASSUMED,
        ),
    )


_UNKNOWN = "Traffic drifted, and answers without confidence do not tell what that did to their quality."
_ASSUMED = "The estimate sees only what the model doubts: where the right answers themselves changed it sees nothing."


def _drifted(drift: DriftEvidence | None) -> bool:
    return drift is not None and drift.judged and (drift.inputs_drifted or drift.predictions_drifted)


def _said(estimate: EstimatedFall, rules: WatchParams) -> str:
    return (
        f"{score(estimate.window)} on the window and {score(estimate.reference)} on the reference, a fall of "
        f"{points(estimate.fall)} ({interval(estimate.interval)}; one-sided p {estimate.p_value:.3g} "
        f"{against_level(estimate.p_value, rules.alpha)})"
    )
