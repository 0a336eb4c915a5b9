"""What rejects a challenger at once: harm on a holdout or a slice, a low recall, an exceeded limit."""

from __future__ import annotations

from collections.abc import Mapping

from perpetune.params import PromoteParams
from perpetune.policy.promotion.evidence import Limit, PairedEvidence, PromotionEvidence, roles
from perpetune.policy.promotion.rules import floor_of, least_rows, rules_for_costs
from perpetune.policy.promotion.sentences import difference, measured, set_by, slice_count
from perpetune.policy.wording import interval, points


def harms(evidence: PromotionEvidence, rules: PromoteParams) -> list[str]:
    """Reasons that reject at once: harm on a holdout or a slice, a label's recall below the floor, an exceeded limit."""
    rules = rules_for_costs(evidence, rules)
    least = least_rows(evidence, rules)
    holdouts = dict(roles(evidence))
    return [
        *(
            _harm(name, paired, evidence, rules)
            for name, paired in holdouts.items()
            if paired.rows >= least and paired.interval.high < -rules.margin
        ),
        *_below_anchor(evidence, rules),
        *_harmed_slices(evidence, rules),
        *_low_recalls(evidence, rules),
        *(_over_limit(name, limit) for name, limit in evidence.limits.items() if limit.exceeded),
    ]


def _harm(name: str, paired: PairedEvidence, evidence: PromotionEvidence, rules: PromoteParams) -> str:
    return (
        f"On the {name} holdout {evidence.subject} is worse than the {evidence.against} by more than the margin of "
        f"{points(rules.margin)} (promote.margin): the difference is {difference(paired)}."
    )


def _below_anchor(evidence: PromotionEvidence, rules: PromoteParams) -> list[str]:
    """Small losses in a row: half of the margin is for chance, so that their sum stays within all of it."""
    anchor, allowed = evidence.anchor, rules.margin / 2
    if anchor is None or anchor.paired.rows < least_rows(evidence, rules) or anchor.paired.difference >= -allowed:
        return []
    return [
        f"On the frozen holdout {evidence.subject} is below version {anchor.version}, the best that ever served, by more than "
        f"half of the margin, {points(allowed)}: the difference is {difference(anchor.paired)}. Each refresh since lost "
        "little, and together they lost too much."
    ]


def _harmed_slices(evidence: PromotionEvidence, rules: PromoteParams) -> list[str]:
    adjusted = holm({name: paired.p_worse for name, paired in evidence.slices.items()})
    return [
        f"On {name} {evidence.subject} is worse than the {evidence.against} by more than {points(rules.slice_margin)} "
        f"(promote.slice_margin): the difference is {difference(evidence.slices[name])}, one-sided p {p_value:.3g} after Holm's correction over "
        f"{slice_count(len(adjusted))} below {rules.alpha:g}."
        for name, p_value in adjusted.items()
        if p_value < rules.alpha
    ]


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's adjusted p-values, the smallest first; they control the family-wise error rate."""
    adjusted: dict[str, float] = {}
    largest = 0.0
    for position, (name, p_value) in enumerate(sorted(p_values.items(), key=lambda one: (one[1], one[0]))):
        largest = max(largest, min(1.0, (len(p_values) - position) * p_value))
        adjusted[name] = largest
    return adjusted


def _low_recalls(evidence: PromotionEvidence, rules: PromoteParams) -> list[str]:
    floors = {label: floor_of(label, rules) for label in evidence.recalls}
    return [
        f"{evidence.subject[:1].upper()}{evidence.subject[1:]} finds {recall.value:.1%} of the {recall.rows} rows labelled "
        f"{label} ({interval(recall.interval)}), below the floor of {floor[0]:.0%} ({floor[1]})."
        for label, recall in evidence.recalls.items()
        if (floor := floors[label]) is not None and recall.below(floor[0])
    ]


def _over_limit(name: str, limit: Limit) -> str:
    return f"{measured(name, limit)}, beyond the limit of {limit.limit:g}{set_by(limit)}."
