"""Whether a challenger takes over."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from perpetune.params import PromoteParams
from perpetune.policy.outweighing import gain_outweighs_loss
from perpetune.policy.verdict import Interval, Outcome, Verdict
from perpetune.policy.wording import against_level, interval, points
from perpetune.statistics.power import labels_to_collect, power_of, rows_needed

FIRST_ROWS = 20  # rows of a holdout that the first trained version needs
NAMED = 3  # of the slices that are too small


@dataclass(frozen=True)
class PairedEvidence:
    """Challenger minus the other on the same rows.

    One-sided p-values: `p_value`, "the challenger is better", and `p_worse`, "it is worse by more than
    promote.slice_margin". `discordance` is the mean squared difference of a row, for scores of 0 and 1 the share of
    rows that the two score differently; more than 1 only where rows have weights.
    """

    difference: float
    interval: Interval
    p_value: float
    rows: int
    discordance: float = 1.0
    p_worse: float = 1.0


@dataclass(frozen=True)
class Limit:
    """One thing that must not have grown: it vetoes where it is shown to be beyond `limit`; None vetoes nothing.

    `value` was measured on `rows` rows, in `unit`; `setting` is where its limit is set, if anywhere. `interval` is None
    where it was counted and not estimated: then the value itself must be within the limit, else the interval's lower
    end.
    """

    value: float
    interval: Interval | None
    limit: float | None
    rows: int
    unit: str
    setting: str = ""

    @property
    def exceeded(self) -> bool:
        """A value that is not a number is within nothing."""
        return self.limit is not None and not (self.interval.low if self.interval else self.value) <= self.limit


@dataclass(frozen=True)
class Recall:
    """The share of a label's `rows` that are found, its interval, and the share that what serves finds; None for none."""

    value: float
    interval: Interval
    rows: int
    serving: float | None

    def below(self, floor: float) -> bool:
        """Whether it is shown to be below the floor, while what serves finds more."""
        return self.interval.high < floor and (self.serving is None or self.serving > self.value)


@dataclass(frozen=True)
class Rival:
    """A system beside the challenger, on the held-out rows that both answered.

    `score` and `challenger` are scores in the gate's metric, and `lead` is the challenger minus the rival. `gate` is the
    rival itself against what serves; None for what cannot serve, and for the base against itself.
    """

    score: float
    challenger: float
    lead: PairedEvidence
    gate: PromotionEvidence | None


@dataclass(frozen=True)
class PromotionEvidence:
    """The challenger `against` the champion, or against the base where there is no champion yet.

    `recent` is None where there is no newly labelled traffic. `slices` are the rows of both holdouts of one label or
    one source ("label positive", "source traffic"), `small` those with too few rows for a test; `limits` are what else
    may veto ("forgetting", "latency"). `balanced` is the holdout that must show a gain, each label counting alike, where
    that is the gate's metric; then `recalls` of all labels are there too. `untrained`: what serves was never trained
    (the base, a prompted version), so there is no skill to lose; `refitted`: it is a linear model. `subject` is who is
    judged, `metric` what `rivals` (the other systems by name) are scored in. `label_ratios` says how many of the labels
    that come join each holdout, by its name.
    """

    frozen: PairedEvidence
    recent: PairedEvidence | None
    against: Literal["champion", "base"]
    slices: Mapping[str, PairedEvidence] = field(default_factory=dict)
    limits: Mapping[str, Limit] = field(default_factory=dict)
    balanced: PairedEvidence | None = None
    recalls: Mapping[str, Recall] = field(default_factory=dict)
    small: Mapping[str, int] = field(default_factory=dict)
    untrained: bool = False
    refitted: bool = False
    subject: str = "the challenger"
    metric: str = "accuracy"
    rivals: Mapping[str, Rival] = field(default_factory=dict)
    label_ratios: Mapping[str, float] = field(default_factory=dict)


def should_promote(evidence: PromotionEvidence, rules: PromoteParams) -> Verdict:
    """Decide whether the challenger takes over: "promote", "reject" or "collect more labels".

    Against a champion the frozen holdout guards what was good (the difference's lower bound stays
    above minus the margin: a non-inferiority test, Piaggio et al., JAMA 2012;308:2594) and the recent
    holdout, which shows the change that the frozen one is too old for, must show a gain; without a
    recent one the frozen must show it. Against the base, where there is nothing yet to be recent about, the
    frozen holdout must show the gain and a recent one, if any, guards. Harm shown on either, or on a slice (Holm
    1979, Scand. J. Statist. 6:65, over all slices), a label hardly found, or a limit exceeded rejects at once, since more
    labels would not undo it. A gain that at its least is more than the guarding holdout may have lost opens the gate
    too. What is not shown is rejected where the rows had a chance of `power` to show it, the gain of a challenger better
    by `gain` and the guard of one that is as good, or where the interval rules such a gain out; else labels are asked
    for. The reasons hold all that was found, the decisive first.
    """
    guard, gain = _roles(evidence)
    holdouts = dict([guard, gain])
    least = least_rows(evidence, rules)
    found = _Found(
        harm=harms(evidence, rules),
        few=[
            _too_few(name, paired.rows, least, evidence.label_ratios)
            for name, paired in holdouts.items()
            if paired.rows < least
        ],
        gaining=_gained(gain[0], evidence.balanced or gain[1], evidence, rules),
        guarding=_guarded(*guard, evidence, rules),
        sound=_sound(evidence, rules),
        paid=_paid(guard, gain, rules),
    )
    outcome, reasons = _weighed(found)
    return Verdict(outcome, tuple(dict.fromkeys(reasons)), _promotion_rule(guard[0], gain[0], evidence, rules))


def least_rows(evidence: PromotionEvidence, rules: PromoteParams) -> int:
    """Rows that a verdict needs: fewer where what serves was never trained, since the exact test holds at any size."""
    return min(rules.min_rows, FIRST_ROWS) if evidence.untrained else rules.min_rows


def harms(evidence: PromotionEvidence, rules: PromoteParams) -> list[str]:
    """What rejects at once, a sentence each: harm on a holdout or a slice, a label hardly found, a limit exceeded."""
    least = least_rows(evidence, rules)
    holdouts = dict(_roles(evidence))
    return [
        *(
            _harm(name, paired, evidence, rules)
            for name, paired in holdouts.items()
            if paired.rows >= least and paired.interval.high < -rules.margin
        ),
        *_harmed_slices(evidence, rules),
        *_hardly_found(evidence, rules),
        *(_over(name, limit) for name, limit in evidence.limits.items() if limit.exceeded),
    ]


def _roles(evidence: PromotionEvidence) -> tuple[tuple[str, PairedEvidence], tuple[str, PairedEvidence]]:
    """The holdout that guards and the one that must show a gain, by name."""
    frozen = ("frozen", evidence.frozen)
    recent = ("recent", evidence.recent) if evidence.recent else frozen
    return (frozen, recent) if evidence.against == "champion" else (recent, frozen)


@dataclass(frozen=True)
class _Found:
    """Sentences on harm, on holdouts with too few rows and on what vetoes nothing; and what the two tests found."""

    harm: list[str]
    few: list[str]
    gaining: _Finding
    guarding: _Finding
    sound: list[str]
    paid: str | None


def _weighed(found: _Found) -> tuple[Outcome, list[str]]:
    """The outcome, and all reasons with the decisive first."""
    findings = sorted((found.gaining, found.guarding), key=lambda finding: finding.shown)
    sentences = [finding.sentence for finding in findings]
    if found.harm:
        return "reject", [*found.harm, *sentences, *found.sound]
    if found.few:
        return "collect more labels", [*found.few, *sentences, *found.sound]
    unshown = [finding for finding in findings if not finding.shown]
    if not unshown:
        return "promote", [*sentences, *found.sound]
    if found.gaining.shown and found.paid:
        return "promote", [found.gaining.sentence, found.paid, found.guarding.sentence, *found.sound]
    hopeless = [finding.sentence for finding in unshown if finding.lack is None]
    if hopeless:
        return "reject", [*hopeless, *sentences, *found.sound]
    return "collect more labels", [*(finding.lack or "" for finding in unshown), *sentences, *found.sound]


@dataclass(frozen=True)
class _Finding:
    """Whether a holdout shows what it should, and which labels it `lack`s for the stated power; None for none."""

    shown: bool
    sentence: str
    lack: str | None


def _paid(guard: tuple[str, PairedEvidence], gain: tuple[str, PairedEvidence], rules: PromoteParams) -> str | None:
    """The sentence that says so if the gain outweighs what the guarding holdout may have lost, else None."""
    if not gain_outweighs_loss(guard[1].difference, guard[1].interval, gain[1].interval, rules.margin):
        return None
    return (
        f"The gain on the {gain[0]} holdout, {points(gain[1].interval.low)} at its least, is more than the "
        f"{points(-guard[1].interval.low)} that the {guard[0]} one may have lost at its most."
    )


def _guarded(name: str, paired: PairedEvidence, evidence: PromotionEvidence, rules: PromoteParams) -> _Finding:
    level = (1 - paired.interval.level) / 2
    alike = paired.rows > 0 and paired.discordance == 0
    most = _most_unseen(paired.rows, level) if alike else 1.0
    shown = paired.interval.low > -rules.margin or most < rules.margin
    claim = "is not worse than" if shown else "is not shown to be no worse than"
    sure = f", and no row of them differs, so that at most {most:.1%} of all rows do" if alike else ""
    sentence = (
        f"On the {name} holdout {evidence.subject} {claim} the {evidence.against} by the margin of "
        f"{points(rules.margin)}: the difference is {_difference(paired)}{sure}."
    )
    if shown:
        return _Finding(True, sentence, None)
    if alike and rules.margin:
        return _Finding(
            False, sentence, _lack_of_alike(name, paired.rows, level, most, rules.margin, evidence.label_ratios)
        )
    true = 0.0 if rules.margin else rules.gain  # no number of rows shows that what is as good is better
    missed = f"a challenger {'as good' if rules.margin else f'better by {points(rules.gain)}'}"
    return _Finding(
        False, sentence, _lack(name, paired, missed, rules.power, true, level, rules.margin, evidence.label_ratios)
    )


def _most_unseen(rows: int, level: float) -> float:
    """The largest share of differing rows that `rows` rows without one leave room for (Clopper & Pearson 1934)."""
    return 1 - math.exp(math.log(level) / rows)


def _lack_of_alike(name: str, rows: int, level: float, most: float, margin: float, ratios: Mapping[str, float]) -> str:
    needed = math.floor(math.log(level) / math.log(1 - margin)) + 1
    return (
        f"The {rows} rows of the {name} holdout are all answered alike, which leaves room for {most:.1%} that are not: "
        f"{_collect(name, needed - rows, ratios)}."
    )


def _gained(name: str, paired: PairedEvidence, evidence: PromotionEvidence, rules: PromoteParams) -> _Finding:
    shown = paired.p_value < rules.alpha and paired.difference > 0
    claim = "is better than" if shown else "is not shown to be better than"
    measure = ", each label counting alike," if evidence.balanced else ""
    sentence = (
        f"On the {name} holdout {evidence.subject}{measure} {claim} the {evidence.against}: the difference is "
        f"{_difference(paired)}, one-sided p {paired.p_value:.3g} {against_level(paired.p_value, rules.alpha)}."
    )
    missed = f"a true gain of {points(rules.gain)}"
    if paired.interval.high < rules.gain:  # a gain worth finding is ruled out already
        return _Finding(shown, sentence, None)
    lack = _lack(name, paired, missed, rules.power, rules.gain, rules.alpha, 0.0, evidence.label_ratios)
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
    if paired.rows >= needed or not paired.rows:
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


def _harm(name: str, paired: PairedEvidence, evidence: PromotionEvidence, rules: PromoteParams) -> str:
    return (
        f"On the {name} holdout {evidence.subject} is worse than the {evidence.against} by more than the margin of "
        f"{points(rules.margin)} (promote.margin): the difference is {_difference(paired)}."
    )


def _harmed_slices(evidence: PromotionEvidence, rules: PromoteParams) -> list[str]:
    adjusted = _holm({name: paired.p_worse for name, paired in evidence.slices.items()})
    return [
        f"On {name} {evidence.subject} is worse than the {evidence.against} by more than {points(rules.slice_margin)} "
        f"(promote.slice_margin): the difference is {_difference(evidence.slices[name])}, one-sided p {p_value:.3g} after Holm's correction over "
        f"{_slices(len(adjusted))} below {rules.alpha:g}."
        for name, p_value in adjusted.items()
        if p_value < rules.alpha
    ]


def _holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's adjusted p-values, the smallest first: rejecting those below alpha errs at all with alpha at most."""
    adjusted: dict[str, float] = {}
    largest = 0.0
    for position, (name, p_value) in enumerate(sorted(p_values.items(), key=lambda one: (one[1], one[0]))):
        largest = max(largest, min(1.0, (len(p_values) - position) * p_value))
        adjusted[name] = largest
    return adjusted


def _hardly_found(evidence: PromotionEvidence, rules: PromoteParams) -> list[str]:
    if rules.min_recall is None:
        return []
    return [
        f"{evidence.subject[:1].upper()}{evidence.subject[1:]} finds {recall.value:.1%} of the {recall.rows} rows labelled "
        f"{label} ({interval(recall.interval)}), below the floor of {rules.min_recall:.0%} (promote.min_recall)."
        for label, recall in evidence.recalls.items()
        if recall.below(rules.min_recall)
    ]


def _sound(evidence: PromotionEvidence, rules: PromoteParams) -> list[str]:
    """What was looked at and vetoes nothing, and what was too small to be looked at."""
    within = [_kept(name, limit) for name, limit in evidence.limits.items() if not limit.exceeded]
    small = [_small(evidence.small, rules)] if evidence.small else []
    adjusted = _holm({name: paired.p_worse for name, paired in evidence.slices.items()})
    if not adjusted or min(adjusted.values()) < rules.alpha:
        return [*small, *within]
    lowest = min(evidence.slices, key=lambda name: (evidence.slices[name].difference, name))
    return [
        f"Of {_slices(len(adjusted))} none is shown to be worse by more than {points(rules.slice_margin)}: the lowest "
        f"difference, on {lowest}, is {_difference(evidence.slices[lowest])}.",
        *small,
        *within,
    ]


def _small(small: Mapping[str, int], rules: PromoteParams) -> str:
    smallest = sorted(small, key=lambda name: (small[name], name))[:NAMED]
    named = ", ".join(f"{name} ({small[name]} row{'s' * (small[name] != 1)})" for name in smallest)
    more = f" and {len(small) - NAMED} more" if len(small) > NAMED else ""
    return f"Too small to be tested, with fewer than {rules.slice_rows} rows (promote.slice_rows): {named}{more}."


def _slices(count: int) -> str:
    return "1 slice" if count == 1 else f"{count} slices"


def _over(name: str, limit: Limit) -> str:
    return f"{_measured(name, limit)}, beyond the limit of {limit.limit:g}{_set_by(limit)}."


def _kept(name: str, limit: Limit) -> str:
    if limit.limit is None:
        unset = f", which vetoes nothing{f' ({limit.setting} is not set)' if limit.setting else ''}"
        return f"{_measured(name, limit)}{unset}."
    claim = "within" if limit.value <= limit.limit else "not shown to be beyond"
    return f"{_measured(name, limit)}, {claim} the limit of {limit.limit:g}{_set_by(limit)}."


def _set_by(limit: Limit) -> str:
    return f" ({limit.setting})" if limit.setting else ""


def _measured(name: str, limit: Limit) -> str:
    found = limit.interval
    sure = f"{100 * found.level:g}% interval {found.low:.3g} to {found.high:.3g}, " if found else ""
    return f"{name[:1].upper()}{name[1:]} is {limit.value:.3g} {limit.unit} ({sure}{limit.rows} rows)"


def _too_few(name: str, rows: int, least: int, ratios: Mapping[str, float]) -> str:
    return f"The {name} holdout has {rows} of the {least} rows that a verdict needs: {_collect(name, least - rows, ratios)}."


def _promotion_rule(guard: str, gain: str, evidence: PromotionEvidence, rules: PromoteParams) -> str:
    slices = f", or a slice worse by more than {points(rules.slice_margin)}," if evidence.slices else ""
    limited = [name for name, limit in evidence.limits.items() if limit.limit is not None]
    limits = f" or {', '.join(limited)} is beyond its limit" if limited else ""
    found = rules.min_recall is not None and evidence.recalls
    floor = f" or less than {rules.min_recall:.0%} of a label is found" if found else ""
    measure = ", each label counting alike" if evidence.balanced else ""
    return (
        f"Promote where {evidence.subject} is not worse than the {evidence.against} by {points(rules.margin)} on the "
        f"{guard} holdout (lower end of the interval) and better on the {gain} one (one-sided p below "
        f"{rules.alpha:g}{measure}), or where that gain at its least is more than may be lost at most, with at least "
        f"{least_rows(evidence, rules)} rows in each; reject at once where harm{slices} is shown{floor}{limits}; else ask "
        f"for labels where a challenger better by {points(rules.gain)} there, and as "
        f"good here, would be found with a chance of less than {rules.power:.0%}."
    )


def _difference(paired: PairedEvidence) -> str:
    return f"{100 * paired.difference:+.1f} points ({interval(paired.interval)}, {paired.rows} rows)"
