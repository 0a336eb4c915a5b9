"""The tests of the gate: not worse, better, and within the margin of the best that ever served."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import NormalDist

from perpetune.params import PromoteParams
from perpetune.policy.promotion.evidence import PairedEvidence, PromotionEvidence
from perpetune.policy.promotion.rules import gain_level, gain_worth_finding, least_rows, rules_for_costs
from perpetune.policy.promotion.sentences import as_independent, collect, difference
from perpetune.policy.wording import points, versus_alpha
from perpetune.statistics.power import power_of, rows_needed
from perpetune.statistics.sequential.betting import equivalent_level

ANCHOR_ERROR = 0.1  # of the test against the anchor, on rows that decided nothing before


@dataclass(frozen=True)
class TestResult:
    """Whether a test passed, and the sentence on the labels it lacks for the stated power, None if none."""

    passed: bool
    sentence: str
    lack: str | None


def guard_test(name: str, paired: PairedEvidence, evidence: PromotionEvidence, rules: PromoteParams) -> TestResult:
    """Whether the challenger is not worse by the margin: the lower end of the interval is above minus the margin."""
    level = (1 - paired.interval.level) / 2
    equal = paired.rows > 0 and paired.discordance == 0
    most = _largest_ratio(paired.rows, level) if equal else 1.0
    passed = paired.interval.low > -rules.margin or most < rules.margin
    claim = "is not worse than" if passed else "is not shown to be no worse than"
    bound = f", and none of the rows differs, so that at most {most:.1%} of all rows do" if equal else ""
    sentence = (
        f"On the {name} holdout {evidence.subject} {claim} the {evidence.against} by the margin of "
        f"{points(rules.margin)}: the difference is {difference(paired)}{bound}."
    )
    if passed:
        return TestResult(True, sentence, None)
    if equal and rules.margin:
        return TestResult(
            False,
            sentence,
            _missing_labels_without_differences(name, paired.rows, level, most, rules.margin, evidence.label_ratios),
        )
    true = 0.0 if rules.margin else rules.gain  # without a margin an equal challenger never passes
    missed = f"a challenger that is {'as good' if rules.margin else f'better by {points(rules.gain)}'}"
    return TestResult(
        False,
        sentence,
        _missing_labels(name, paired, missed, rules.power, true, level, rules.margin, evidence.label_ratios),
    )


def _largest_ratio(rows: int, level: float) -> float:
    """Upper bound of the ratio of differing rows if none of `rows` rows differs (Clopper & Pearson 1934)."""
    return 1 - math.exp(math.log(level) / rows)


def _missing_labels_without_differences(
    name: str, rows: int, level: float, most: float, margin: float, ratios: Mapping[str, float]
) -> str:
    needed = math.floor(math.log(level) / math.log(1 - margin)) + 1
    return (
        f"Both give the same answers on the {rows} rows of the {name} holdout, but may differ on up to {most:.1%} of all "
        f"rows: {collect(name, needed - rows, ratios)}."
    )


def gain_test(name: str, paired: PairedEvidence, evidence: PromotionEvidence, rules: PromoteParams) -> TestResult:
    """Whether the challenger is better, one-sided at the level of `gain_level`."""
    alpha = gain_level(name, evidence, rules)
    passed = paired.p_value < alpha and paired.difference > 0
    claim = "is better than" if passed else "is not shown to be better than"
    measure = ", each label counting alike," if evidence.balanced else ""
    sentence = (
        f"On the {name} holdout {evidence.subject}{measure} {claim} the {evidence.against}: the difference is "
        f"{difference(paired)}, one-sided p {paired.p_value:.3g} {versus_alpha(paired.p_value, alpha)}."
    )
    gain = gain_worth_finding(paired, rules)
    missed = f"a true gain of {points(gain)}"
    if paired.interval.high < gain:  # the interval excludes a relevant gain
        return TestResult(passed, sentence, None)
    lack = _missing_labels(name, paired, missed, rules.power, gain, alpha, 0.0, evidence.label_ratios)
    return TestResult(passed, sentence, lack)


def anchor_test(evidence: PromotionEvidence, rules: PromoteParams) -> TestResult | None:
    """Whether the challenger is within the margin of the best version that ever served; None if there is no such test.

    One-sided, at an error of `ANCHOR_ERROR` over the square root of 1 plus the verdicts that the frozen rows decided
    before: each refresh draws again, and the luckiest of many worse challengers would pass. A simulation set both: 52
    refreshes that lose a point each lose at most the margin, on 100 to 1,000 frozen rows.
    """
    anchor = evidence.anchor
    if anchor is None or anchor.paired.rows < least_rows(evidence, rules):
        return None
    rules, use = rules_for_costs(evidence, rules), evidence.uses.get("frozen")
    error, paired = ANCHOR_ERROR / math.sqrt(1 + (use.verdicts if use else 0.0)), anchor.paired
    independent = paired.rows if paired.effective is None else max(paired.effective, 1)
    low = paired.difference - NormalDist().inv_cdf(1 - error) * math.sqrt(paired.discordance / independent)
    passed = low >= -rules.margin
    claim = "is within" if passed else "is not shown to be within"
    sentence = (
        f"On the frozen holdout {evidence.subject} {claim} the margin of {points(rules.margin)} of version {anchor.version}, "
        f"the best that ever served: the difference is {difference(paired)}, its lower bound at {error:.0%} {100 * low:+.1f}."
    )
    missed = f"a challenger that is as good as version {anchor.version}"
    rows = replace(paired, by_betting=False)
    ratios = evidence.label_ratios
    lack = (
        _missing_labels("frozen", rows, missed, rules.power, 0.0, error, rules.margin, ratios) if rules.margin else None
    )
    return TestResult(passed, sentence, None if passed else lack)


def _missing_labels(
    name: str,
    paired: PairedEvidence,
    missed: str,
    power: float,
    true: float,
    alpha: float,
    margin: float,
    ratios: Mapping[str, float],
) -> str | None:
    alpha = equivalent_level(alpha) if paired.by_betting else alpha
    needed = rows_needed(true, paired.discordance, alpha=alpha, power=power, margin=margin)
    independent = paired.rows if paired.effective is None else paired.effective
    if independent >= needed or not independent:
        return None
    chance = 1 - power_of(independent, true, paired.discordance, alpha=alpha, margin=margin)
    missing = math.ceil((needed - independent) * paired.rows / independent)
    return (
        f"The {paired.rows} rows of the {name} holdout{as_independent(paired)} would miss {missed} with a chance of "
        f"{chance:.0%} at the observed discordance of {paired.discordance:.2f}: {collect(name, missing, ratios)}."
    )
