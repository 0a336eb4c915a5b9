"""Whether labels are to be asked for, or a refresh is due, where too few labels tell how good the champion is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from perpetune.params import RefreshParams, WatchParams
from perpetune.policy.estimated_accuracy import EstimatedFall
from perpetune.policy.retraining import DriftEvidence, RetrainEvidence, held_up
from perpetune.policy.verdict import Outcome, Verdict
from perpetune.policy.wording import interval, points, score

Step = Literal["nothing", "ask", "retrain"]


@dataclass(frozen=True)
class LabelDecision:
    """What to do without labels, and why: the first sentence is the decisive one."""

    step: Step
    reasons: tuple[str, ...]


def decide_without_labels(
    judged: Verdict, evidence: RetrainEvidence, rules: WatchParams, refresh: RefreshParams
) -> Verdict:
    """The verdict on labels, `judged`, unless it found too little and what needs no labels calls for more.

    Adds the outcome "ask for labels". A refresh waits for budget and cooldown here too.
    """
    if judged.outcome not in ("keep", "collect more labels"):
        return judged
    asking = without_labels(evidence.labelled_in_window, evidence.estimate, evidence.drift, rules)
    if asking.step == "nothing":
        return Verdict(judged.outcome, (*judged.reasons, *asking.reasons), judged.rule)
    waiting = held_up(evidence, refresh) if asking.step == "retrain" else []
    outcome: Outcome = "retrain" if asking.step == "retrain" else "ask for labels"
    if waiting:
        outcome = waiting[0][0]
    reasons = (*asking.reasons, *(why for _, why in waiting), *judged.reasons)
    return Verdict(outcome, reasons, f"{judged.rule} {_rule(rules)}")


def without_labels(
    labelled: int, estimate: EstimatedFall | None, drift: DriftEvidence | None, rules: WatchParams
) -> LabelDecision:
    """Decide between nothing, asking for labels and, where the setting says so, a refresh.

    Both must speak: the whole interval of the estimated fall lies above the margin, and inputs or predictions
    drifted. Where answers carry no confidence, and so there is no estimate, drift asks for labels at most: alone it
    never retrains. Where `labelled` of the window's answers, `label_requests` or more, are labelled, what could be asked
    for is there, and labels decide.
    """
    if labelled >= rules.label_requests or rules.without_labels == "nothing" or not _drifted(drift):
        return LabelDecision("nothing", ())
    if estimate is None:
        return LabelDecision("ask", (_UNKNOWN,))
    if not estimate.interval.low > estimate.margin:
        return LabelDecision("nothing", (f"Confidence shows no such fall: {_said(estimate)}.",))
    return LabelDecision(
        rules.without_labels,
        (
            f"The accuracy estimated from confidence has fallen by more than the margin of {points(estimate.margin)}, "
            f"and traffic drifted: {_said(estimate)}.",
            _ASSUMED,
        ),
    )


_UNKNOWN = "Traffic drifted, and answers without confidence do not tell what that did to their quality."
_ASSUMED = "The estimate sees only what the model doubts: where the right answers themselves changed it sees nothing."


def _rule(rules: WatchParams) -> str:
    step = {"ask": "ask for labels", "retrain": "retrain", "nothing": "do nothing"}[rules.without_labels]
    return (
        f"With fewer than {rules.label_requests} labels in the window {step} where the accuracy estimated from confidence "
        f"is shown to have fallen by more than {points(rules.margin)} and inputs or predictions drifted."
    )


def _drifted(drift: DriftEvidence | None) -> bool:
    return drift is not None and drift.judged and (drift.inputs_drifted or drift.predictions_drifted)


def _said(estimate: EstimatedFall) -> str:
    return (
        f"{score(estimate.window)} on the window and {score(estimate.reference)} on the reference, a fall of "
        f"{points(estimate.fall)} ({interval(estimate.interval)})"
    )
