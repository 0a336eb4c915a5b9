"""The promotion gate."""

from __future__ import annotations

import math
from dataclasses import dataclass

from perpetune.params import PromoteParams
from perpetune.policy.promotion.evidence import PairedEvidence, PromotionEvidence, roles
from perpetune.policy.promotion.harms import harms
from perpetune.policy.promotion.holdout_tests import TestResult, anchor_test, gain_test, guard_test
from perpetune.policy.promotion.outweighing import gain_outweighs_loss, p_of_mean_gain
from perpetune.policy.promotion.passed import passed
from perpetune.policy.promotion.rules import floor_of, gain_level, least_rows, rules_for_costs
from perpetune.policy.promotion.sentences import too_few
from perpetune.policy.verdict import Outcome, Verdict
from perpetune.policy.wording import arrived_unasked, points, significant, versus_alpha


def should_promote(evidence: PromotionEvidence, rules: PromoteParams) -> Verdict:
    """Decide "promote", "reject" or "collect more labels".

    Against a champion, the frozen holdout guards: the lower bound of the difference must stay above minus the margin (a
    non-inferiority test; Piaggio et al., JAMA 2012;308:2594). The recent holdout must show a gain; without one the frozen
    holdout must show it. Against the base, the frozen holdout must show the gain, and a recent one, if any, guards.

    The verdict is "reject" if harm is shown on a holdout or on a slice (Holm 1979, Scand. J. Statist. 6:65, over all
    slices), a label's recall is below the floor, or a limit is exceeded. The guard also passes if the gain outweighs the
    possible loss (see `gain_outweighs_loss`). A test that does not pass is a "reject" if the rows had a power of `power`,
    for the gain against a true gain of `gain` and for the guard against a true difference of 0, or if the interval
    excludes such a gain; otherwise the verdict is "collect more labels". The decisive reason is first.

    After decay the level of the gain is `alpha_after_decay`, and the guard also passes if the mean of both holdouts has
    improved at that level: the champion has lost its claim to be the safe choice. What shows harm rejects as ever.

    Rows that decided before are paid for: see `gain_level` and `anchor_test`.
    """
    rules = rules_for_costs(evidence, rules)
    guard, gain = roles(evidence)
    holdouts = dict([guard, gain])
    least = least_rows(evidence, rules)
    found = _Results(
        harm=harms(evidence, rules),
        few=[
            too_few(name, paired.rows, least, evidence.label_ratios)
            for name, paired in holdouts.items()
            if paired.rows < least
        ],
        gaining=gain_test(gain[0], evidence.balanced or gain[1], evidence, rules),
        guarding=guard_test(*guard, evidence, rules),
        anchoring=anchor_test(evidence, rules),
        passed=passed(evidence, rules),
        outweighs=_outweighs(guard, gain, rules) or _likelier_better(guard, gain, evidence, rules),
    )
    outcome, reasons = _outcome(found)
    reasons += arrived_unasked(evidence.unasked, evidence.recent.rows if evidence.recent else 0)
    return Verdict(outcome, tuple(dict.fromkeys(reasons)), _promotion_rule(guard[0], gain[0], evidence, rules))


@dataclass(frozen=True)
class _Results:
    """Reasons on harm, on too few rows and on what passed; and the results of the tests, the anchor's if there is one."""

    harm: list[str]
    few: list[str]
    gaining: TestResult
    guarding: TestResult
    anchoring: TestResult | None
    passed: list[str]
    outweighs: str | None


def _outcome(found: _Results) -> tuple[Outcome, list[str]]:
    """The outcome and all reasons, the decisive one first."""
    all_tests = [found.gaining, found.guarding, *([found.anchoring] if found.anchoring else [])]
    tests = sorted(all_tests, key=lambda result: result.passed)
    sentences = [result.sentence for result in tests]
    if found.harm:
        return "reject", [*found.harm, *sentences, *found.passed]
    if found.few:
        return "collect more labels", [*found.few, *sentences, *found.passed]
    failed = [result for result in tests if not result.passed]
    if not failed:
        return "promote", [*sentences, *found.passed]
    if found.outweighs and failed == [found.guarding]:
        return "promote", [found.gaining.sentence, found.outweighs, found.guarding.sentence, *found.passed]
    hopeless = [result.sentence for result in failed if result.lack is None]
    if hopeless:
        return "reject", [*hopeless, *sentences, *found.passed]
    return "collect more labels", [*(result.lack or "" for result in failed), *sentences, *found.passed]


def _outweighs(guard: tuple[str, PairedEvidence], gain: tuple[str, PairedEvidence], rules: PromoteParams) -> str | None:
    """The reason if the gain outweighs the possible loss on the guarding holdout, else None."""
    if not gain_outweighs_loss(guard[1].difference, guard[1].interval, gain[1].interval, rules.margin):
        return None
    return (
        f"The gain on the {gain[0]} holdout is at least {points(gain[1].interval.low)}, more than the largest possible loss "
        f"of {points(-guard[1].interval.low)} on the {guard[0]} one."
    )


def _likelier_better(
    guard: tuple[str, PairedEvidence],
    gain: tuple[str, PairedEvidence],
    evidence: PromotionEvidence,
    rules: PromoteParams,
) -> str | None:
    """The reason if, after decay, the mean of both holdouts has improved at the level of the gain, else None."""
    if not (evidence.is_after_decay and rules.alpha_after_decay) or guard[1].difference <= -rules.margin:
        return None
    level = gain_level(gain[0], evidence, rules)
    p_value = p_of_mean_gain(gain[1].difference, _error(gain[1]), guard[1].difference, _error(guard[1]))
    if p_value >= level:
        return None
    mean = (gain[1].difference + guard[1].difference) / 2
    return (
        f"The refresh is for decay, so that the likelier better one serves: the mean of both holdouts has changed by "
        f"{points(mean)}, one-sided p {p_value:.3g} {versus_alpha(p_value, level)}."
    )


def _error(paired: PairedEvidence) -> float:
    """The standard error of a difference, from its discordance."""
    independent = paired.rows if paired.effective is None else paired.effective
    return math.sqrt(paired.discordance / max(independent, 1))


def _promotion_rule(guard: str, gain: str, evidence: PromotionEvidence, rules: PromoteParams) -> str:
    slices = f", or a slice worse by more than {points(rules.slice_margin)}," if evidence.slices else ""
    limited = [name for name, limit in evidence.limits.items() if limit.limit is not None]
    limits = f" or {', '.join(limited)} is beyond its limit" if limited else ""
    floors = sorted({known[0] for label in evidence.recalls if (known := floor_of(label, rules)) is not None})
    least_found = " to ".join(f"{floor:.0%}" for floor in dict.fromkeys((floors[0], floors[-1]))) if floors else ""
    floor = f" or less than {least_found} of a label is found" if floors else ""
    measure = ", each label counting alike" if evidence.balanced else ""
    likelier = (
        ", or if the mean of both has improved at that level, because the refresh is for decay"
        if evidence.is_after_decay and rules.alpha_after_decay
        else ""
    )
    return (
        f"Promote if {evidence.subject} is not worse than the {evidence.against} by {points(rules.margin)} on the "
        f"{guard} holdout (lower end of the interval) and better on the {gain} one (one-sided p below "
        f"{significant(gain_level(gain, evidence, rules), 2)}{measure}), or if that gain outweighs the possible loss (lower "
        f"bounds of both){likelier}, with at least {least_rows(evidence, rules)} rows in each; reject at once if harm{slices} is shown{floor}{limits}; else ask "
        f"for labels if the power for a gain of {points(rules.gain)}, or for a challenger as good as the "
        f"{evidence.against}, is below {rules.power:.0%}."
    )
