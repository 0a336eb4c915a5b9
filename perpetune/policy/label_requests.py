"""Whether to request labels or to retrain if there are too few labels to test for decay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from perpetune.params import RefreshParams, WatchParams
from perpetune.policy.estimated_accuracy import EstimatedFall, estimate_sentences
from perpetune.policy.retraining import DriftEvidence, RetrainEvidence, waiting_for
from perpetune.policy.verdict import Outcome, Verdict
from perpetune.policy.wording import interval, points, score

LabelStep = Literal["nothing", "ask", "retrain"]


@dataclass(frozen=True)
class LabelDecision:
    """What to do with too few labels; the first reason is the decisive one."""

    step: LabelStep
    reasons: tuple[str, ...]


def decide_without_labels(
    on_labels: Verdict, evidence: RetrainEvidence, rules: WatchParams, refresh: RefreshParams
) -> Verdict:
    """The verdict `on_labels` on labels, or a stronger one from estimated accuracy and drift if labels are too few.

    Adds the outcome "ask for labels", and how far each estimate was from labels before. Budget and cooldown apply to a
    refresh here too.
    """
    shown = [*([] if evidence.estimate is None else [evidence.estimate]), *evidence.other_estimates.values()]
    told = tuple(sentence for each in shown for sentence in estimate_sentences(each))
    on_labels = Verdict(on_labels.outcome, (*on_labels.reasons, *told), on_labels.rule)
    if on_labels.outcome not in ("keep", "collect more labels"):
        return on_labels
    decision = label_decision(evidence.labelled_in_window, evidence.estimate, evidence.drift, rules)
    if decision.step == "nothing":
        return Verdict(on_labels.outcome, (*on_labels.reasons, *decision.reasons), on_labels.rule)
    waiting = waiting_for(evidence, refresh) if decision.step == "retrain" else []
    outcome: Outcome = "retrain" if decision.step == "retrain" else "ask for labels"
    if waiting:
        outcome = waiting[0][0]
    reasons = (*decision.reasons, *(why for _, why in waiting), *on_labels.reasons)
    return Verdict(outcome, reasons, f"{on_labels.rule} {_rule(rules)}")


def label_decision(
    labelled: int, estimate: EstimatedFall | None, drift: DriftEvidence | None, rules: WatchParams
) -> LabelDecision:
    """Decide between nothing, requesting labels and, if `watch.without_labels` is "retrain", a refresh.

    Both conditions must hold: the interval of the estimated fall lies above the margin, and inputs or predictions
    drifted. An estimate never retrains alone: the fall must be beyond the margin even if the estimate is as much too low as
    the last labels leave possible, else it requests labels. Without an estimate drift can only request labels, and so it is
    with one that the last labels have shown to be wrong by more than the margin: it decides nothing. If `label_requests` or more of the window's answers are
    labelled, labels decide.
    """
    if labelled >= rules.label_requests or rules.without_labels == "nothing" or not _drifted(drift):
        return LabelDecision("nothing", ())
    if estimate is None:
        return LabelDecision("ask", (_UNKNOWN,))
    if estimate.is_wrong:
        return LabelDecision("ask", (_WRONG.format(by=estimate.method),))
    by = estimate.method
    if not estimate.interval.low > estimate.margin:
        return LabelDecision(
            "nothing",
            (f"The accuracy estimated from {by} is not shown to have fallen so far: {_numbers(estimate)}.",),
        )
    fallen = (
        f"The accuracy estimated from {by} has fallen by more than the margin of {points(estimate.margin)}, "
        f"and traffic drifted: {_numbers(estimate)}."
    )
    if rules.without_labels == "retrain" and not estimate.falls_for_sure:
        return LabelDecision("ask", (fallen, _UNPROVEN))
    return LabelDecision(rules.without_labels, (fallen,))


_UNKNOWN = "Traffic drifted, and nothing estimates the score without labels: labels are asked for."
_WRONG = (
    "Traffic drifted, and the score estimated from {by} decides nothing, because the last labels have shown it to be wrong: "
    "labels are asked for."
)
_UNPROVEN = "It starts no refresh, because by the last labels it may be so much too low that nothing has fallen: labels are asked for."


def _rule(rules: WatchParams) -> str:
    step = {"ask": "ask for labels", "retrain": "retrain", "nothing": "do nothing"}[rules.without_labels]
    return (
        f"With fewer than {rules.label_requests} labels in the window {step} if the score estimated without labels has fallen "
        f"by more than {points(rules.margin)} and inputs or predictions drifted."
    )


def _drifted(drift: DriftEvidence | None) -> bool:
    return drift is not None and drift.judged and (drift.inputs_drifted or drift.predictions_drifted)


def _numbers(estimate: EstimatedFall) -> str:
    return (
        f"{score(estimate.window)} on the window and {score(estimate.reference)} on the reference, a fall of "
        f"{points(estimate.fall)} ({interval(estimate.interval)})"
    )
