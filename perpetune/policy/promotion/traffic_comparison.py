"""The promotion gate on stored traffic, if the holdouts are too small: labels of disagreements alone decide.

Why, and its error rates: docs/decisions/0028-labels-of-disagreements.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from perpetune.params import PromoteParams
from perpetune.policy.promotion.evidence import PairedEvidence, PromotionEvidence, TrafficEvidence
from perpetune.policy.promotion.harms import harms
from perpetune.policy.promotion.holdout_tests import anchor_test
from perpetune.policy.promotion.outweighing import gain_outweighs_loss
from perpetune.policy.promotion.rules import gain_worth_finding, rules_for_costs
from perpetune.policy.verdict import Outcome, Verdict
from perpetune.policy.wording import interval, points, versus_alpha
from perpetune.statistics.disagreements import gain_labels, guard_labels, upper_ratio

EARLIER = "earlier traffic and the frozen holdout"
MOST_TRAFFIC = 4  # times `promote.traffic_rows` are answered if few answers differ
TOP_UP = 40  # labels of another look, if the one before was enough by plan and nearly showed the gain
DOUBT = 0.84  # standard errors by which the frozen holdout alone must contradict the guard to block it (20% one-sided)


@dataclass(frozen=True)
class LabelPlan:
    """How many more labels of disagreements to ask for: on recent and on earlier traffic."""

    recent: int
    earlier: int

    @property
    def total(self) -> int:
        return self.recent + self.earlier


@dataclass(frozen=True)
class _Test:
    """Whether a test passed, its sentence, and the labels of disagreements that it lacks; None if none would help."""

    passed: bool
    sentence: str
    lack: int | None


def should_promote_on_traffic(evidence: PromotionEvidence, rules: PromoteParams) -> Verdict:
    """Decide "promote", "reject" or "collect more labels" from the comparison on stored traffic.

    Recent traffic, with the recent holdout, must show the gain: the sign test on the labelled disagreements, at half the
    level of the gate, and at half of that again for each further round of labels. The guard passes on the frozen holdout
    alone, or on earlier traffic together with it unless the frozen holdout contradicts, or if the gain outweighs the
    possible loss. Harm on holdouts and slices and exceeded limits reject as in `should_promote`.
    """
    assert evidence.traffic is not None
    rules = rules_for_costs(evidence, rules)
    gaining, guarding = _gain(evidence, evidence.traffic, rules), _guard(evidence, evidence.traffic, rules)
    sentences = [each.sentence for each in sorted((gaining, guarding), key=lambda each: each.passed)]
    rule = _rule(evidence, evidence.traffic, rules)
    if harm := _harms(evidence, evidence.traffic, rules):
        return Verdict("reject", (*harm, *sentences), rule)
    anchoring = anchor_test(evidence, rules)
    if anchoring is not None and not anchoring.passed:  # labels of traffic say nothing of the anchor
        outcome: Outcome = "reject" if anchoring.lack is None else "collect more labels"
        return Verdict(outcome, (anchoring.lack or anchoring.sentence, anchoring.sentence, *sentences), rule)
    if gaining.passed and guarding.passed:
        return Verdict("promote", tuple(sentences), rule)
    failed = [each for each in (gaining, guarding) if not each.passed]
    if any(each.lack is None for each in failed):
        hopeless = [each.sentence for each in failed if each.lack is None]
        return Verdict("reject", tuple(dict.fromkeys([*hopeless, *sentences])), rule)
    lacks = [f"{each.lack} more labels of disagreements are wanted: {each.sentence}" for each in failed]
    return Verdict("collect more labels", tuple(dict.fromkeys([*lacks, *sentences])), rule)


def labels_to_ask(evidence: PromotionEvidence, rules: PromoteParams) -> LabelPlan:
    """The labels that both tests lack, within `promote.disagreement_labels`; those for the gain come first."""
    assert evidence.traffic is not None
    rules = rules_for_costs(evidence, rules)
    gaining, guarding = _gain(evidence, evidence.traffic, rules), _guard(evidence, evidence.traffic, rules)
    anchoring = anchor_test(evidence, rules)
    if anchoring is not None and not anchoring.passed:
        return LabelPlan(0, 0)
    if _harms(evidence, evidence.traffic, rules) or any(
        not each.passed and each.lack is None for each in (gaining, guarding)
    ):
        return LabelPlan(0, 0)
    wanted = [0 if each.passed else (each.lack or 0) for each in (gaining, guarding)]
    recent = min(wanted[0], rules.disagreement_labels)
    return LabelPlan(recent, min(wanted[1], rules.disagreement_labels - recent))


def wanted_gain(evidence: PromotionEvidence, rules: PromoteParams) -> float:
    """The gain worth finding on recent traffic: half of the errors on the recent holdout or on both, whichever is less.

    A small holdout of a model that is nearly always right has few errors, and by chance many more than usual.
    """
    holdouts = [each for each in (evidence.frozen, evidence.recent) if each is not None and each.other is not None]
    rows = sum(each.rows for each in holdouts)
    if not rows:
        return gain_worth_finding(evidence.frozen, rules)
    both = sum(each.rows * (each.other or 0.0) for each in holdouts) / rows
    newest = (evidence.recent or evidence.frozen).other or 0.0
    return gain_worth_finding(replace(evidence.frozen, other=max(both, newest)), rules)


def rows_to_answer(evidence: PromotionEvidence, differing: int, rows: int, rules: PromoteParams) -> int:
    """How many recent requests both should answer, if they answer `differing` of the first `rows` differently.

    So many as hold the disagreements whose labels show the gain; at most `MOST_TRAFFIC` times `promote.traffic_rows`. The
    number depends on which answers differ, not on which are right, so that the sign test on the labels keeps its level.
    """
    rules = rules_for_costs(evidence, rules)
    wanted = wanted_gain(evidence, rules)
    ratio = max(differing / max(rows, 1), wanted)
    needed = gain_labels(ratio, wanted, alpha=rules.alpha / 2, power=_power(rules)) or 0
    most = MOST_TRAFFIC * rules.traffic_rows
    return min(most, max(rows, math.ceil(min(needed, rules.disagreement_labels) / ratio)))


def level(traffic: TrafficEvidence, rules: PromoteParams) -> float:
    """The level of the test of the gain: the holdouts had the first look, and each round of labels is one more."""
    return rules.alpha * math.pow(0.5, max(traffic.rounds, 1))


def _power(rules: PromoteParams) -> float:
    """Of each test: both must pass, after a gate that may reject too, for a promotion with `promote.power`."""
    return 1 - (1 - rules.power) / 4


def _gain(evidence: PromotionEvidence, traffic: TrafficEvidence, rules: PromoteParams) -> _Test:
    paired, alpha = traffic.recent, level(traffic, rules)
    if paired is None:
        return _Test(False, "There is no recent traffic to compare on.", None)
    passed = paired.p_value < alpha and paired.difference > 0
    claim = "is better than" if passed else "is not shown to be better than"
    sentence = (
        f"On recent traffic {evidence.subject} {claim} the {evidence.against}: the difference is {_difference(paired)}, "
        f"one-sided p {paired.p_value:.3g} {versus_alpha(paired.p_value, alpha)}."
    )
    wanted = wanted_gain(evidence, rules)
    differing, labels = paired.differing or 0, paired.labels or 0
    ratio = differing / paired.rows
    if paired.interval.high < wanted or upper_ratio(differing, paired.rows, alpha) < wanted:
        return _Test(passed, sentence, None)
    needed = gain_labels(max(ratio, wanted), wanted, alpha=alpha, power=_power(rules))
    if needed is not None and paired.p_value < 2 * alpha:  # shown at the level of the look before: worth another one
        needed = max(needed, labels + TOP_UP)
    return _Test(passed, sentence, _left(needed, labels, differing))


def _guard(evidence: PromotionEvidence, traffic: TrafficEvidence, rules: PromoteParams) -> _Test:
    frozen, paired, gain = evidence.frozen, traffic.earlier, traffic.recent
    alone = frozen.interval.low > -rules.margin
    if paired is None or alone:
        return _guard_alone(evidence, gain, alone, rules)
    within = paired.interval.low > -rules.margin
    contradicted = frozen.difference + DOUBT * math.sqrt(frozen.discordance / max(frozen.rows, 1)) < -rules.margin
    claim = "is not worse than" if within else "is not shown to be no worse than"
    but = f"; but on the frozen holdout alone the difference is {_difference(frozen)}" if contradicted else ""
    sentence = (
        f"On {EARLIER} {evidence.subject} {claim} the {evidence.against} by the margin of {points(rules.margin)}: the "
        f"difference is {_difference(paired)}{but}."
    )
    if contradicted or within:
        return _Test(not contradicted, sentence, None)
    if gain is not None and gain_outweighs_loss(paired.difference, paired.interval, gain.interval, rules.margin):
        return _Test(True, f"{sentence} {_outweighs(paired, gain, EARLIER)}", None)
    differing, labels = paired.differing or 0, paired.labels or 0
    error = (1 - paired.interval.level) / 2
    needed = guard_labels(paired.rows, differing / paired.rows, rules.margin, alpha=error, power=_power(rules))
    return _Test(False, sentence, _left(needed, labels, differing))


def _guard_alone(evidence: PromotionEvidence, gain: PairedEvidence | None, passed: bool, rules: PromoteParams) -> _Test:
    frozen = evidence.frozen
    claim = "is not worse than" if passed else "is not shown to be no worse than"
    sentence = (
        f"On the frozen holdout {evidence.subject} {claim} the {evidence.against} by the margin of "
        f"{points(rules.margin)}: the difference is {_difference(frozen)}."
    )
    if gain is not None and gain_outweighs_loss(frozen.difference, frozen.interval, gain.interval, rules.margin):
        return _Test(True, f"{sentence}{'' if passed else ' ' + _outweighs(frozen, gain, 'the frozen holdout')}", None)
    return _Test(passed, sentence, None)


def _outweighs(guard: PairedEvidence, gain: PairedEvidence, where: str) -> str:
    return (
        f"The gain on recent traffic is at least {points(gain.interval.low)}, more than the largest possible loss of "
        f"{points(-guard.interval.low)} on {where}."
    )


def _harms(evidence: PromotionEvidence, traffic: TrafficEvidence, rules: PromoteParams) -> list[str]:
    """As on holdouts and slices, and on stored traffic."""
    samples = {"recent traffic": traffic.recent, EARLIER: traffic.earlier}
    return [
        *harms(evidence, rules),
        *(
            f"On {name} {evidence.subject} is worse than the {evidence.against} by more than the margin of "
            f"{points(rules.margin)} (promote.margin): the difference is {_difference(paired)}."
            for name, paired in samples.items()
            if paired is not None and paired.interval.high < -rules.margin
        ),
    ]


def _left(needed: int | None, labels: int, differing: int) -> int | None:
    """The labels still to ask for; all that are left if no number of them has the stated power; None if all are in."""
    left = differing - labels
    missing = left if needed is None else min(left, needed - labels)
    return missing if missing > 0 else None


def _difference(paired: PairedEvidence) -> str:
    labelled = (
        ""
        if paired.labels is None
        else f", of which {paired.differing:,} are answered differently and {paired.labels:,} of those labelled"
    )
    return f"{100 * paired.difference:+.1f} points ({interval(paired.interval)}, {paired.rows:,} rows{labelled})"


def _rule(evidence: PromotionEvidence, traffic: TrafficEvidence, rules: PromoteParams) -> str:
    return (
        f"Promote if {evidence.subject} is better than the {evidence.against} on recent traffic (sign test on labelled "
        f"disagreements, one-sided p below {level(traffic, rules):g}) and not worse by {points(rules.margin)} on the frozen "
        f"holdout, or on earlier traffic together with it unless it contradicts, or if that gain outweighs the possible "
        f"loss; reject at once if harm is shown; else ask for labels of disagreements."
    )
