"""The promotion gate."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from statistics import NormalDist
from typing import Literal

from perpetune.params import PromoteParams
from perpetune.policy.cost_margin import margin_by_cost
from perpetune.policy.costs import AnswerCost
from perpetune.policy.outweighing import gain_outweighs_loss, p_of_mean_gain
from perpetune.policy.verdict import Interval, Outcome, Verdict
from perpetune.policy.wording import arrived_unasked, interval, points, significant, versus_alpha
from perpetune.statistics.betting import equivalent_level
from perpetune.statistics.power import labels_to_collect, power_of, rows_needed

FIRST_ROWS = 20  # least rows of a holdout for the first trained version
LEAST_GAIN = 0.001  # that is worth finding, however few errors there are
ANCHOR_ERROR = 0.1  # of the test against the anchor, on rows that decided nothing before
MAX_NAMED = 3  # slices named of those that are too small, and pools
MAX_MEMBERS = 6  # of a pool


@dataclass(frozen=True)
class PairedEvidence:
    """A paired comparison: challenger minus the other system on the same rows.

    One-sided p-values: `p_value` for "the challenger is better", `p_worse` for "it is worse by more than
    promote.slice_margin". `discordance` is the mean squared difference of a row: for scores of 0 and 1 the ratio of rows
    that the two score differently. It exceeds 1 only if rows are weighted. `other` is the mean score of the other system.

    `effective` is the number of independent rows that tell as much, if rows of one group are alike or weights differ.
    `by_betting`: the scores are graded, and the test needs more rows than for scores of 0 and 1.

    If the rows are not labelled but some on which the answers differ: `differing` counts those, `labels` the labelled
    ones among them.
    """

    difference: float
    interval: Interval
    p_value: float
    rows: int
    discordance: float = 1.0
    p_worse: float = 1.0
    other: float | None = None
    effective: int | None = None
    by_betting: bool = False
    differing: int | None = None
    labels: int | None = None


@dataclass(frozen=True)
class TrafficEvidence:
    """The challenger against the champion on stored traffic, from labels of disagreements drawn by lot.

    `recent` includes the rows of the recent holdout and must show the gain; `earlier` includes those of the frozen
    holdout and guards. None if there is no such traffic. `rounds` counts the times that labels were asked for.
    """

    recent: PairedEvidence | None
    earlier: PairedEvidence | None
    rounds: int = 1


@dataclass(frozen=True)
class Anchor:
    """The challenger against the best version that ever served, on the frozen holdout."""

    version: str
    paired: PairedEvidence


@dataclass(frozen=True)
class HoldoutUse:
    """How often a holdout decided: the mean over its `rows` of earlier `verdicts`; `fresh` rows decided none."""

    verdicts: float
    rows: int
    fresh: int

    def __str__(self) -> str:
        if self.fresh == self.rows:
            return f"all {self.rows:,} rows are new"
        times = f"{significant(self.verdicts, 2)} earlier verdict{'s' * (self.verdicts != 1)}"
        return f"{self.rows:,} rows, on average in {times}; {self.fresh:,} are new"


@dataclass(frozen=True)
class MistakeCostEvidence:
    """The mean cost of an answer of the system under test and of what serves, on the frozen holdout.

    `largest` is the largest cost of an answer: scores are 1 less the cost as a ratio of it.
    """

    ours: float
    theirs: float
    largest: float


@dataclass(frozen=True)
class Limit:
    """A measurement that vetoes a promotion if it exceeds `limit`; a limit of None never vetoes.

    `value` was measured on `rows` rows, in `unit`; `setting` is the name of the limit's setting, if it has one. The
    interval's lower end must be within the limit, or the value itself if `interval` is None because it was counted.
    """

    value: float
    interval: Interval | None
    limit: float | None
    rows: int
    unit: str
    setting: str = ""

    @property
    def exceeded(self) -> bool:
        """Whether the limit is exceeded; NaN exceeds every limit."""
        return self.limit is not None and not (self.interval.low if self.interval else self.value) <= self.limit


@dataclass(frozen=True)
class Recall:
    """The recall (0 to 1) of a label on its `rows`, with the recall of the system that serves; None if none serves."""

    value: float
    interval: Interval
    rows: int
    serving: float | None

    def below(self, floor: float) -> bool:
        """Whether it is significantly below the floor, while the system that serves has a higher recall."""
        return self.interval.high < floor and (self.serving is None or self.serving > self.value)


@dataclass(frozen=True)
class Rival:
    """Another system compared with the challenger on the held-out rows that both answered.

    `score` and `challenger` are the two scores in the gate's metric; `lead` is challenger minus rival. `gate` is the
    rival's own evidence against what serves; None if the rival cannot serve or is the base compared with itself.
    `models`, for a linear rival: the other language models by name, each minus the rival.
    """

    score: float
    challenger: float
    lead: PairedEvidence
    gate: PromotionEvidence | None
    models: Mapping[str, PairedEvidence] = field(default_factory=dict)


@dataclass(frozen=True)
class HostedComparison:
    """A system compared with the hosted model's recorded answers, on the same rows and in the gate's metric.

    `score` is the system's, `hosted` that of the hosted model; `lead` is the first minus the second. `left_out` is the
    number of held-out rows without a recorded answer.
    """

    score: float
    hosted: float
    lead: PairedEvidence
    left_out: int = 0


@dataclass(frozen=True)
class PromotionEvidence:
    """The challenger compared with the champion, or with the base if there is no champion yet.

    - `frozen`, `recent`: the holdouts; `recent` is None without newly labelled traffic.
    - `slices`: rows of both holdouts with one label or source ("label positive", "source traffic"); those that are too
      small are tested together, if their inputs are alike: `pooled` has the members by the slice's name, and `small` the
      number of rows of those that are too few even so.
    - `uses`: how often the rows of each holdout decided before, by its name; {} if that is not known.
    - `mistake_costs`: what mistakes cost, if `promote.costs` is set; scores are then by cost.
    - `limits`: other measurements that can veto ("forgetting", "latency").
    - `balanced`: the holdout that must show the gain, in balanced accuracy, if that is the metric; then also `recalls`.
    - `untrained`: what serves was never trained (the base, a prompted version); `refitted`: it is a linear model.
    - `subject`: the system under test; `rivals`: the other systems by name, scored in `metric`.
    - `label_ratios`: the ratio of new labels that join each holdout, by its name.
    - `unasked`: rows of the recent holdout whose labels arrived unasked.
    - `hosted`: each system that may serve, by name, against the hosted model's recorded answers; {} if there are none.
    - `anchor`: the best version that ever served; None if that is the champion.
    - `traffic`: the comparison on stored traffic; None if the holdouts alone decide.
    - `answer_costs`: what answers cost with each system, by its name; they decide nothing.
    - `after_decay`: the refresh is for decay: found now, or before, if more labels of the change have come since.
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
    unasked: int = 0
    hosted: Mapping[str, HostedComparison] = field(default_factory=dict)
    anchor: Anchor | None = None
    traffic: TrafficEvidence | None = None
    answer_costs: Mapping[str, AnswerCost] = field(default_factory=dict)
    pooled: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    mistake_costs: MistakeCostEvidence | None = None
    uses: Mapping[str, HoldoutUse] = field(default_factory=dict)
    after_decay: bool = False

    @property
    def is_after_decay(self) -> bool:
        """Whether the gate is that after decay: recent traffic, which showed it, judges the challenger too."""
        return self.after_decay and self.against == "champion" and self.recent is not None


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
    guard, gain = _roles(evidence)
    holdouts = dict([guard, gain])
    least = least_rows(evidence, rules)
    found = _Results(
        harm=harms(evidence, rules),
        few=[
            _too_few(name, paired.rows, least, evidence.label_ratios)
            for name, paired in holdouts.items()
            if paired.rows < least
        ],
        gaining=_gain_test(gain[0], evidence.balanced or gain[1], evidence, rules),
        guarding=_guard_test(*guard, evidence, rules),
        anchoring=anchor_test(evidence, rules),
        passed=_passed(evidence, rules),
        outweighs=_outweighs(guard, gain, rules) or _likelier_better(guard, gain, evidence, rules),
    )
    outcome, reasons = _outcome(found)
    reasons += arrived_unasked(evidence.unasked, evidence.recent.rows if evidence.recent else 0)
    return Verdict(outcome, tuple(dict.fromkeys(reasons)), _promotion_rule(guard[0], gain[0], evidence, rules))


def least_rows(evidence: PromotionEvidence, rules: PromoteParams) -> int:
    """Least rows of a holdout for a verdict; fewer if what serves was never trained, because the test is exact."""
    return min(rules.min_rows, FIRST_ROWS) if evidence.untrained else rules.min_rows


def gain_worth_finding(paired: PairedEvidence, rules: PromoteParams) -> float:
    """`promote.gain`, but at most half of the other system's errors: at 99% nothing could gain five points."""
    return rules.gain if paired.other is None else max(min(rules.gain, (1 - paired.other) / 2), LEAST_GAIN)


def rules_for_costs(evidence: PromotionEvidence, rules: PromoteParams) -> PromoteParams:
    """With costs, the margins are at most what the mistakes of what serves cost: see `margin_by_cost`."""
    theirs = evidence.frozen.other
    if evidence.mistake_costs is None or theirs is None or not rules.margin:
        return rules
    part = margin_by_cost(rules.margin, theirs) / rules.margin
    return rules.model_copy(
        update={"margin": part * rules.margin, "simpler_margin": min(rules.simpler_margin, part * rules.margin / 3)}
    )


def has_floor(label: str, rules: PromoteParams) -> bool:
    """Whether `promote.recall_floors` names the label."""
    return _own_floor(label, rules) is not None


def _own_floor(label: str, rules: PromoteParams) -> float | None:
    return next((floor for name, floor in rules.recall_floors.items() if name.casefold() == label.casefold()), None)


def harms(evidence: PromotionEvidence, rules: PromoteParams) -> list[str]:
    """Reasons that reject at once: harm on a holdout or a slice, a label's recall below the floor, an exceeded limit."""
    rules = rules_for_costs(evidence, rules)
    least = least_rows(evidence, rules)
    holdouts = dict(_roles(evidence))
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


def _roles(evidence: PromotionEvidence) -> tuple[tuple[str, PairedEvidence], tuple[str, PairedEvidence]]:
    """The holdout that guards and the one that must show a gain, by name."""
    frozen = ("frozen", evidence.frozen)
    recent = ("recent", evidence.recent) if evidence.recent else frozen
    return (frozen, recent) if evidence.against == "champion" else (recent, frozen)


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


@dataclass(frozen=True)
class TestResult:
    """Whether a test passed, and the sentence on the labels it lacks for the stated power, None if none."""

    passed: bool
    sentence: str
    lack: str | None


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


def _guard_test(name: str, paired: PairedEvidence, evidence: PromotionEvidence, rules: PromoteParams) -> TestResult:
    level = (1 - paired.interval.level) / 2
    equal = paired.rows > 0 and paired.discordance == 0
    most = _largest_ratio(paired.rows, level) if equal else 1.0
    passed = paired.interval.low > -rules.margin or most < rules.margin
    claim = "is not worse than" if passed else "is not shown to be no worse than"
    bound = f", and none of the rows differs, so that at most {most:.1%} of all rows do" if equal else ""
    sentence = (
        f"On the {name} holdout {evidence.subject} {claim} the {evidence.against} by the margin of "
        f"{points(rules.margin)}: the difference is {_difference(paired)}{bound}."
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
        f"rows: {_collect(name, needed - rows, ratios)}."
    )


def gain_level(name: str, evidence: PromotionEvidence, rules: PromoteParams) -> float:
    """The level of the test of a gain on a holdout: `promote.alpha` over 1 plus the verdicts that its rows decided before.

    So k verdicts on the same rows call an equal challenger better at most alpha (1 + ln k) times, instead of alpha k; new
    rows restore the level. After decay it is `promote.alpha_after_decay` if that is more: rows that decided before flatter
    the champion, which won on them.
    """
    use = evidence.uses.get(name)
    paid = rules.alpha / (1 + use.verdicts) if use else rules.alpha
    return max(paid, rules.alpha_after_decay) if evidence.is_after_decay else paid


def _gain_test(name: str, paired: PairedEvidence, evidence: PromotionEvidence, rules: PromoteParams) -> TestResult:
    alpha = gain_level(name, evidence, rules)
    passed = paired.p_value < alpha and paired.difference > 0
    claim = "is better than" if passed else "is not shown to be better than"
    measure = ", each label counting alike," if evidence.balanced else ""
    sentence = (
        f"On the {name} holdout {evidence.subject}{measure} {claim} the {evidence.against}: the difference is "
        f"{_difference(paired)}, one-sided p {paired.p_value:.3g} {versus_alpha(paired.p_value, alpha)}."
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
        f"the best that ever served: the difference is {_difference(paired)}, its lower bound at {error:.0%} {100 * low:+.1f}."
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
        f"The {paired.rows} rows of the {name} holdout{_as_independent(paired)} would miss {missed} with a chance of "
        f"{chance:.0%} at the observed discordance of {paired.discordance:.2f}: {_collect(name, missing, ratios)}."
    )


def _as_independent(paired: PairedEvidence) -> str:
    return "" if paired.effective is None else f" (as {paired.effective} independent ones)"


def _collect(name: str, rows: int, ratios: Mapping[str, float]) -> str:
    ratio = ratios.get(name, 1.0)
    labels = labels_to_collect(rows, ratio)
    if labels is None:
        return f"bring {rows} more rows, because no production labels are added to it"
    joins = f", of which {ratio:.0%} join it" if ratio < 1 else ""
    return f"collect {labels} more labels{joins}"


def _harm(name: str, paired: PairedEvidence, evidence: PromotionEvidence, rules: PromoteParams) -> str:
    return (
        f"On the {name} holdout {evidence.subject} is worse than the {evidence.against} by more than the margin of "
        f"{points(rules.margin)} (promote.margin): the difference is {_difference(paired)}."
    )


def _below_anchor(evidence: PromotionEvidence, rules: PromoteParams) -> list[str]:
    """Small losses in a row: half of the margin is for chance, so that their sum stays within all of it."""
    anchor, allowed = evidence.anchor, rules.margin / 2
    if anchor is None or anchor.paired.rows < least_rows(evidence, rules) or anchor.paired.difference >= -allowed:
        return []
    return [
        f"On the frozen holdout {evidence.subject} is below version {anchor.version}, the best that ever served, by more than "
        f"half of the margin, {points(allowed)}: the difference is {_difference(anchor.paired)}. Each refresh since lost "
        "little, and together they lost too much."
    ]


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
    """Holm's adjusted p-values, the smallest first; they control the family-wise error rate."""
    adjusted: dict[str, float] = {}
    largest = 0.0
    for position, (name, p_value) in enumerate(sorted(p_values.items(), key=lambda one: (one[1], one[0]))):
        largest = max(largest, min(1.0, (len(p_values) - position) * p_value))
        adjusted[name] = largest
    return adjusted


def _low_recalls(evidence: PromotionEvidence, rules: PromoteParams) -> list[str]:
    floors = {label: _floor(label, rules) for label in evidence.recalls}
    return [
        f"{evidence.subject[:1].upper()}{evidence.subject[1:]} finds {recall.value:.1%} of the {recall.rows} rows labelled "
        f"{label} ({interval(recall.interval)}), below the floor of {floor[0]:.0%} ({floor[1]})."
        for label, recall in evidence.recalls.items()
        if (floor := floors[label]) is not None and recall.below(floor[0])
    ]


def _floor(label: str, rules: PromoteParams) -> tuple[float, str] | None:
    """The least recall of a label, and the setting that says so."""
    own = _own_floor(label, rules)
    if own is not None:
        return own, "promote.recall_floors"
    return None if rules.min_recall is None else (rules.min_recall, "promote.min_recall")


def _passed(evidence: PromotionEvidence, rules: PromoteParams) -> list[str]:
    """Reasons on limits and slices that do not veto, and on slices that are too small to test."""
    within = [_within_limit(name, limit) for name, limit in evidence.limits.items() if not limit.exceeded]
    small = [*_pools(evidence.pooled, rules), *([_small(evidence.small, rules)] if evidence.small else [])]
    within = [*_reused(evidence, rules), *within]
    if evidence.mistake_costs is not None:
        within = [_mistake_costs(evidence, evidence.mistake_costs), *within]
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


def _mistake_costs(evidence: PromotionEvidence, costs: MistakeCostEvidence) -> str:
    return (
        f"On the frozen holdout mistakes cost {significant(costs.ours)} for each answer of {evidence.subject} and "
        f"{significant(costs.theirs)} for each of the {evidence.against} (promote.costs): a point of the score is "
        f"{significant(costs.largest / 100)}."
    )


def _reused(evidence: PromotionEvidence, rules: PromoteParams) -> list[str]:
    """That the rows decided before, and what it costs."""
    name = _roles(evidence)[1][0]
    known = [(holdout, use) for holdout, use in evidence.uses.items() if use.verdicts]
    paid = significant(gain_level(name, evidence, rules), 2)
    level = f"; the test of a gain on the {name} one is at {paid} instead of {rules.alpha:g}"
    return [f"The {holdout} holdout decided before: {use}{level if holdout == name else ''}." for holdout, use in known]


def _pools(pooled: Mapping[str, tuple[str, ...]], rules: PromoteParams) -> list[str]:
    members = {name: some for name, some in pooled.items() if len(some) > 1}
    if not members:
        return []
    shown = "; ".join(_pool(some) for some in list(members.values())[:MAX_NAMED])
    more = f"; and {len(members) - MAX_NAMED} more pools" if len(members) > MAX_NAMED else ""
    return [
        f"Tested together, because they have fewer than {rules.slice_rows} rows each and similar inputs "
        f"(promote.slice_rows): {shown}{more}."
    ]


def _pool(members: tuple[str, ...]) -> str:
    shown = ", ".join(members[:MAX_MEMBERS])
    return shown + (f" and {len(members) - MAX_MEMBERS} more" if len(members) > MAX_MEMBERS else "")


def _small(small: Mapping[str, int], rules: PromoteParams) -> str:
    smallest = sorted(small, key=lambda name: (small[name], name))[:MAX_NAMED]
    named = ", ".join(f"{name} ({small[name]} row{'s' * (small[name] != 1)})" for name in smallest)
    more = f" and {len(small) - MAX_NAMED} more" if len(small) > MAX_NAMED else ""
    return f"Not tested, because they have fewer than {rules.slice_rows} rows (promote.slice_rows): {named}{more}."


def _slices(count: int) -> str:
    return "1 slice" if count == 1 else f"{count} slices"


def _over_limit(name: str, limit: Limit) -> str:
    return f"{_measured(name, limit)}, beyond the limit of {limit.limit:g}{_set_by(limit)}."


def _within_limit(name: str, limit: Limit) -> str:
    if limit.limit is None:
        unset = f", without a limit{f' ({limit.setting} is not set)' if limit.setting else ''}"
        return f"{_measured(name, limit)}{unset}."
    claim = "within" if limit.value <= limit.limit else "not shown to be beyond"
    return f"{_measured(name, limit)}, {claim} the limit of {limit.limit:g}{_set_by(limit)}."


def _set_by(limit: Limit) -> str:
    return f" ({limit.setting})" if limit.setting else ""


def _measured(name: str, limit: Limit) -> str:
    found = limit.interval
    within = f"{100 * found.level:g}% interval {found.low:.3g} to {found.high:.3g}, " if found else ""
    return f"{name[:1].upper()}{name[1:]} is {limit.value:.3g} {limit.unit} ({within}{limit.rows} rows)"


def _too_few(name: str, rows: int, least: int, ratios: Mapping[str, float]) -> str:
    return f"The {name} holdout has {rows} of the {least} rows that a verdict needs: {_collect(name, least - rows, ratios)}."


def _promotion_rule(guard: str, gain: str, evidence: PromotionEvidence, rules: PromoteParams) -> str:
    slices = f", or a slice worse by more than {points(rules.slice_margin)}," if evidence.slices else ""
    limited = [name for name, limit in evidence.limits.items() if limit.limit is not None]
    limits = f" or {', '.join(limited)} is beyond its limit" if limited else ""
    floors = sorted({known[0] for label in evidence.recalls if (known := _floor(label, rules)) is not None})
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


def _difference(paired: PairedEvidence) -> str:
    rows = f"{paired.rows} rows{_as_independent(paired)}"
    return f"{100 * paired.difference:+.1f} points ({interval(paired.interval)}, {rows})"
