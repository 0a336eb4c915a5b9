"""Whether a challenger takes over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from perpetune.params import PromoteParams
from perpetune.policy.phrases import against_level, interval, points
from perpetune.policy.verdict import Interval, Outcome, Verdict


@dataclass(frozen=True)
class PairedEvidence:
    """Challenger minus the other on the same rows; `p_value` is one-sided, "the challenger is better"."""

    difference: float
    interval: Interval
    p_value: float
    rows: int


@dataclass(frozen=True)
class Limit:
    """One thing that must not have grown: it vetoes where it is shown to be beyond `limit`.

    `value` was measured on `rows` rows, in `unit`. `interval` is None where it was counted and not estimated: then the
    value itself must be within the limit, else the interval's lower end.
    """

    value: float
    interval: Interval | None
    limit: float
    rows: int
    unit: str

    @property
    def exceeded(self) -> bool:
        """A value that is not a number is within nothing."""
        return not (self.interval.low if self.interval else self.value) <= self.limit


@dataclass(frozen=True)
class PromotionEvidence:
    """The challenger `against` the champion, or against the base where there is no champion yet.

    `recent` is None where there is no newly labelled traffic. `slices` are the rows of both holdouts of one label or
    one source ("label positive", "source traffic"); `limits` are what else may veto ("forgetting", "latency").
    """

    frozen: PairedEvidence
    recent: PairedEvidence | None
    against: Literal["champion", "base"]
    slices: Mapping[str, PairedEvidence] = field(default_factory=dict)
    limits: Mapping[str, Limit] = field(default_factory=dict)


def should_promote(evidence: PromotionEvidence, rules: PromoteParams) -> Verdict:
    """Decide whether the challenger takes over: "promote", "reject" or "collect more labels".

    Against a champion the frozen holdout guards what was good (the difference's lower bound stays
    above minus the margin: a non-inferiority test, Piaggio et al., JAMA 2012;308:2594) and the recent
    holdout, which shows the change that the frozen one is too old for, must show a gain; without a
    recent one the frozen must show it. Against the base, where there is nothing yet to be recent about, the
    frozen holdout must show the gain and a recent one, if any, guards. Harm shown on either rejects
    at once, since more labels would not undo it.
    """
    other = evidence.against
    frozen = ("frozen", evidence.frozen)
    recent = ("recent", evidence.recent) if evidence.recent else frozen
    guard, gain = (frozen, recent) if other == "champion" else (recent, frozen)
    holdouts = dict([guard, gain])

    def verdict(outcome: Outcome, *reasons: str) -> Verdict:
        return Verdict(outcome, reasons, _promotion_rule(guard[0], gain[0], other, rules))

    harm = [
        _harm(name, paired, other, rules)
        for name, paired in holdouts.items()
        if paired.rows >= rules.min_rows and paired.interval.high < -rules.margin
    ]
    if harm:
        return verdict("reject", *harm)
    small = [_too_few(name, paired, rules) for name, paired in holdouts.items() if paired.rows < rules.min_rows]
    if small:
        return verdict("collect more labels", *small)

    guarded, guarding = _guarded(*guard, other, rules)
    gained, gaining = _gained(*gain, other, rules)
    if guarded and gained:
        return verdict("promote", gaining, guarding)
    return verdict("reject", *((guarding, gaining) if not guarded else (gaining, guarding)))


def _guarded(name: str, paired: PairedEvidence, other: str, rules: PromoteParams) -> tuple[bool, str]:
    passed = paired.interval.low > -rules.margin
    claim = "is not worse than" if passed else "is not shown to be no worse than"
    sentence = (
        f"On the {name} holdout the challenger {claim} the {other} by the margin of {points(rules.margin)}: "
        f"the difference is {_difference(paired)}."
    )
    return passed, sentence


def _gained(name: str, paired: PairedEvidence, other: str, rules: PromoteParams) -> tuple[bool, str]:
    passed = paired.p_value < rules.alpha and paired.difference > 0
    claim = "is better than" if passed else "is not shown to be better than"
    sentence = (
        f"On the {name} holdout the challenger {claim} the {other}: the difference is {_difference(paired)}, "
        f"one-sided p {paired.p_value:.3g} {against_level(paired.p_value, rules.alpha)}."
    )
    return passed, sentence


def _harm(name: str, paired: PairedEvidence, other: str, rules: PromoteParams) -> str:
    return (
        f"On the {name} holdout the challenger is worse than the {other} by more than the margin of "
        f"{points(rules.margin)}: the difference is {_difference(paired)}."
    )


def _too_few(name: str, paired: PairedEvidence, rules: PromoteParams) -> str:
    return (
        f"The {name} holdout has {paired.rows} of the {rules.min_rows} rows that a verdict needs: "
        f"collect {rules.min_rows - paired.rows} more labels."
    )


def _promotion_rule(guard: str, gain: str, other: str, rules: PromoteParams) -> str:
    return (
        f"Promote where the challenger is not worse than the {other} by {points(rules.margin)} on the {guard} "
        f"holdout (lower end of the interval) and better on the {gain} one (one-sided p below {rules.alpha:g}), "
        f"with at least {rules.min_rows} rows in each; reject at once where harm is shown."
    )


def _difference(paired: PairedEvidence) -> str:
    return f"{100 * paired.difference:+.1f} points ({interval(paired.interval)}, {paired.rows} rows)"
