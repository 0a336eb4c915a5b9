"""Whether a challenger takes over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from perpetune.params import PromoteParams
from perpetune.policy.guard import outweighed
from perpetune.policy.phrases import against_level, interval, points
from perpetune.policy.power import labels_to_collect, power_of, rows_needed
from perpetune.policy.verdict import Interval, Outcome, Verdict


@dataclass(frozen=True)
class PairedEvidence:
    """Challenger minus the other on the same rows.

    One-sided p-values: `p_value`, "the challenger is better", and `p_worse`, "it is worse by more than
    promote.slice_margin". `discordance` is the mean squared difference of a row, for scores of 0 and 1 the share of
    rows that the two score differently; 1 is the most that there can be.
    """

    difference: float
    interval: Interval
    p_value: float
    rows: int
    discordance: float = 1.0
    p_worse: float = 1.0


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
    `label_ratios` says how many of the labels that come join each holdout, by its name.
    """

    frozen: PairedEvidence
    recent: PairedEvidence | None
    against: Literal["champion", "base"]
    slices: Mapping[str, PairedEvidence] = field(default_factory=dict)
    limits: Mapping[str, Limit] = field(default_factory=dict)
    label_ratios: Mapping[str, float] = field(default_factory=dict)


def should_promote(evidence: PromotionEvidence, rules: PromoteParams) -> Verdict:
    """Decide whether the challenger takes over: "promote", "reject" or "collect more labels".

    Against a champion the frozen holdout guards what was good (the difference's lower bound stays
    above minus the margin: a non-inferiority test, Piaggio et al., JAMA 2012;308:2594) and the recent
    holdout, which shows the change that the frozen one is too old for, must show a gain; without a
    recent one the frozen must show it. Against the base, where there is nothing yet to be recent about, the
    frozen holdout must show the gain and a recent one, if any, guards. Harm shown on either, or on a slice (Holm
    1979, Scand. J. Statist. 6:65, over all slices), or a limit exceeded rejects at once, since more labels would not
    undo it. A gain that at its least is more than the guarding holdout may have lost opens the gate too. What is
    not shown is rejected where the rows had a chance of `power` to show it, the gain of a challenger
    better by `gain` and the guard of one that is as good, or where the interval rules such a gain out; else labels are
    asked for.
    """
    other = evidence.against
    frozen = ("frozen", evidence.frozen)
    recent = ("recent", evidence.recent) if evidence.recent else frozen
    guard, gain = (frozen, recent) if other == "champion" else (recent, frozen)
    holdouts = dict([guard, gain])

    def verdict(outcome: Outcome, *reasons: str) -> Verdict:
        return Verdict(outcome, reasons, _promotion_rule(guard[0], gain[0], evidence, rules))

    harm = [
        *(
            _harm(name, paired, other, rules)
            for name, paired in holdouts.items()
            if paired.rows >= rules.min_rows and paired.interval.high < -rules.margin
        ),
        *_harmed_slices(evidence, rules),
        *(_over(name, limit) for name, limit in evidence.limits.items() if limit.exceeded),
    ]
    if harm:
        return verdict("reject", *harm)
    ratios = evidence.label_ratios
    small = [_too_few(name, paired, rules, ratios) for name, paired in holdouts.items() if paired.rows < rules.min_rows]
    if small:
        return verdict("collect more labels", *small)

    gaining, guarding = _gained(*gain, other, rules, ratios), _guarded(*guard, other, rules, ratios)
    if gaining.shown and guarding.shown:
        return verdict("promote", gaining.sentence, guarding.sentence, *_sound(evidence, rules))
    if gaining.shown and outweighed(guard[1].difference, guard[1].interval, gain[1].interval, rules.margin):
        pays = _outweighed(guard, gain)
        return verdict("promote", gaining.sentence, pays, guarding.sentence, *_sound(evidence, rules))
    findings = sorted((gaining, guarding), key=lambda finding: finding.shown)
    if any(not finding.shown and finding.lack is None for finding in findings):
        findings.sort(key=lambda finding: finding.shown or finding.lack is not None)
        return verdict("reject", *(finding.sentence for finding in findings))
    lacks = [finding.lack for finding in findings if finding.lack and not finding.shown]
    return verdict("collect more labels", *lacks, *(finding.sentence for finding in findings))


@dataclass(frozen=True)
class _Finding:
    """Whether a holdout shows what it should, and which labels it `lack`s for the stated power; None for none."""

    shown: bool
    sentence: str
    lack: str | None


def _outweighed(guard: tuple[str, PairedEvidence], gain: tuple[str, PairedEvidence]) -> str:
    return (
        f"The gain on the {gain[0]} holdout, {points(gain[1].interval.low)} at its least, is more than the "
        f"{points(-guard[1].interval.low)} that the {guard[0]} one may have lost at its most."
    )


def _guarded(
    name: str, paired: PairedEvidence, other: str, rules: PromoteParams, ratios: Mapping[str, float]
) -> _Finding:
    shown = paired.interval.low > -rules.margin
    claim = "is not worse than" if shown else "is not shown to be no worse than"
    sentence = (
        f"On the {name} holdout the challenger {claim} the {other} by the margin of {points(rules.margin)}: "
        f"the difference is {_difference(paired)}."
    )
    true = 0.0 if rules.margin else rules.gain  # no number of rows shows that what is as good is better
    missed = f"a challenger {'as good' if rules.margin else f'better by {points(rules.gain)}'}"
    lack = _lack(name, paired, missed, rules.power, true, (1 - paired.interval.level) / 2, rules.margin, ratios)
    return _Finding(shown, sentence, lack)


def _gained(
    name: str, paired: PairedEvidence, other: str, rules: PromoteParams, ratios: Mapping[str, float]
) -> _Finding:
    shown = paired.p_value < rules.alpha and paired.difference > 0
    claim = "is better than" if shown else "is not shown to be better than"
    sentence = (
        f"On the {name} holdout the challenger {claim} the {other}: the difference is {_difference(paired)}, "
        f"one-sided p {paired.p_value:.3g} {against_level(paired.p_value, rules.alpha)}."
    )
    missed = f"a true gain of {points(rules.gain)}"
    if paired.interval.high < rules.gain:  # a gain worth finding is ruled out already
        return _Finding(shown, sentence, None)
    lack = _lack(name, paired, missed, rules.power, rules.gain, rules.alpha, 0.0, ratios)
    return _Finding(shown, sentence, lack)


def _lack(
    name: str,
    paired: PairedEvidence,
    missed: str,
    power: float,
    true: float,
    alpha: float,
    margin: float,
    ratios: Mapping[str, float],
) -> str | None:
    needed = rows_needed(true, paired.discordance, alpha=alpha, power=power, margin=margin)
    if paired.rows >= needed:
        return None
    chance = 1 - power_of(paired.rows, true, paired.discordance, alpha=alpha, margin=margin)
    return (
        f"The {paired.rows} rows of the {name} holdout would miss {missed} with a chance of {chance:.0%} at the "
        f"discordance seen, {paired.discordance:.2f}: {_collect(name, needed - paired.rows, ratios)}."
    )


def _collect(name: str, rows: int, ratios: Mapping[str, float]) -> str:
    ratio = ratios.get(name, 1.0)
    labels = labels_to_collect(rows, ratio)
    if labels is None:
        return f"bring {rows} more rows, which no label of production adds to it"
    joins = f", of which {ratio:.0%} join it" if ratio < 1 else ""
    return f"collect {labels} more labels{joins}"


def _harm(name: str, paired: PairedEvidence, other: str, rules: PromoteParams) -> str:
    return (
        f"On the {name} holdout the challenger is worse than the {other} by more than the margin of "
        f"{points(rules.margin)}: the difference is {_difference(paired)}."
    )


def _harmed_slices(evidence: PromotionEvidence, rules: PromoteParams) -> list[str]:
    adjusted = _holm({name: paired.p_worse for name, paired in evidence.slices.items()})
    return [
        f"On {name} the challenger is worse than the {evidence.against} by more than {points(rules.slice_margin)}: the "
        f"difference is {_difference(evidence.slices[name])}, one-sided p {p_value:.3g} after Holm's correction over "
        f"{_slices(len(adjusted))} below {rules.alpha:g}."
        for name, p_value in adjusted.items()
        if p_value < rules.alpha
    ]


def _holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's adjusted p-values, the smallest first: rejecting those below alpha errs at all with alpha at most."""
    adjusted: dict[str, float] = {}
    largest = 0.0
    for place, (name, p_value) in enumerate(sorted(p_values.items(), key=lambda one: (one[1], one[0]))):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_value))
        adjusted[name] = largest
    return adjusted


def _sound(evidence: PromotionEvidence, rules: PromoteParams) -> list[str]:
    """What was looked at and vetoes nothing."""
    within = [_kept(name, limit) for name, limit in evidence.limits.items()]
    adjusted = _holm({name: paired.p_worse for name, paired in evidence.slices.items()})
    if not adjusted:
        return within
    lowest = min(evidence.slices, key=lambda name: (evidence.slices[name].difference, name))
    return [
        f"Of {_slices(len(adjusted))} none is shown to be worse by more than {points(rules.slice_margin)}: the lowest "
        f"difference, on {lowest}, is {_difference(evidence.slices[lowest])}.",
        *within,
    ]


def _slices(count: int) -> str:
    return "1 slice" if count == 1 else f"{count} slices"


def _over(name: str, limit: Limit) -> str:
    return f"{_measured(name, limit)}, beyond the limit of {limit.limit:g}."


def _kept(name: str, limit: Limit) -> str:
    claim = "within" if limit.value <= limit.limit else "not shown to be beyond"
    return f"{_measured(name, limit)}, {claim} the limit of {limit.limit:g}."


def _measured(name: str, limit: Limit) -> str:
    found = limit.interval
    sure = f"{100 * found.level:g}% interval {found.low:.3g} to {found.high:.3g}, " if found else ""
    return f"{name[:1].upper()}{name[1:]} is {limit.value:.3g} {limit.unit} ({sure}{limit.rows} rows)"


def _too_few(name: str, paired: PairedEvidence, rules: PromoteParams, ratios: Mapping[str, float]) -> str:
    return (
        f"The {name} holdout has {paired.rows} of the {rules.min_rows} rows that a verdict needs: "
        f"{_collect(name, rules.min_rows - paired.rows, ratios)}."
    )


def _promotion_rule(guard: str, gain: str, evidence: PromotionEvidence, rules: PromoteParams) -> str:
    slices = f", or a slice worse by more than {points(rules.slice_margin)}," if evidence.slices else ""
    limits = f" or {', '.join(evidence.limits)} is beyond its limit" if evidence.limits else ""
    return (
        f"Promote where the challenger is not worse than the {evidence.against} by {points(rules.margin)} on the "
        f"{guard} holdout (lower end of the interval) and better on the {gain} one (one-sided p below "
        f"{rules.alpha:g}), or where that gain at its least is more than may be lost at most, with at least "
        f"{rules.min_rows} rows in each; reject at once where harm{slices} is "
        f"shown{limits}; else ask for labels where a challenger better by {points(rules.gain)} there, and as "
        f"good here, would be found with a chance of less than {rules.power:.0%}."
    )


def _difference(paired: PairedEvidence) -> str:
    return f"{100 * paired.difference:+.1f} points ({interval(paired.interval)}, {paired.rows} rows)"
