"""What the loop decides, and why: pure functions from evidence to a verdict with reasons.

Evidence holds numbers that others have measured, with their intervals and sample sizes. Scores and
differences are shares of 1 here (0.02 is two points); the reasons speak of points.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from perpetune.params import PromoteParams, WatchParams

Outcome = Literal[
    "promote",
    "reject",
    "retrain",
    "keep",
    "cooling down",
    "collect more labels",
    "abort",
    "continue",
    "roll back",
]


@dataclass(frozen=True)
class Interval:
    """A confidence interval, both ends within it, and its level (0.95 is 95%).

    Raises ValueError where the ends are swapped or not numbers.
    """

    low: float
    high: float
    level: float = 0.95

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise ValueError(f"an interval runs from its low end to its high end, not from {self.low} to {self.high}")


@dataclass(frozen=True)
class Score:
    """A mean score of `rows` rows."""

    mean: float
    interval: Interval
    rows: int


@dataclass(frozen=True)
class PairedEvidence:
    """Challenger minus the other on the same rows; `p_value` is one-sided, "the challenger is better"."""

    difference: float
    interval: Interval
    p_value: float
    rows: int


@dataclass(frozen=True)
class PromotionEvidence:
    """The challenger `against` the champion, or against the base where there is no champion yet.

    `recent` is None where there is no newly labelled traffic.
    """

    frozen: PairedEvidence
    recent: PairedEvidence | None
    against: Literal["champion", "base"]


@dataclass(frozen=True)
class Decay:
    """How far the labelled window scores below the reference.

    `drop` is reference minus window; `p_value` is one-sided, "the drop is more than `margin`".
    """

    window: Score
    reference: Score
    drop: float
    interval: Interval
    margin: float
    p_value: float
    test: str


@dataclass(frozen=True)
class ColumnDrift:
    """One column of the window against the reference: drifted where `value` is at most `threshold`."""

    test: str
    value: float
    threshold: float
    drifted: bool


@dataclass(frozen=True)
class DriftEvidence:
    """Whether inputs and predictions moved.

    `share` is that of the input columns which drifted. `judged` is False, and `columns` empty, where
    the window or the reference holds too few rows.
    """

    judged: bool
    rows: int
    reference_rows: int
    share: float
    inputs_drifted: bool
    predictions_drifted: bool
    columns: Mapping[str, ColumnDrift]


@dataclass(frozen=True)
class RetrainEvidence:
    """What the monitor saw. `decay` is None where the window or the reference has no score at all."""

    labelled: int
    decay: Decay | None
    drift: DriftEvidence | None
    minutes_since_refresh: float | None


@dataclass(frozen=True)
class Verdict:
    """What was decided. The first reason is the decisive one; each is one sentence."""

    outcome: Outcome
    reasons: tuple[str, ...]
    rule: str


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


def should_retrain(evidence: RetrainEvidence, rules: WatchParams, cooldown_minutes: float) -> Verdict:
    """Decide whether to start a refresh: "retrain", "keep", "collect more labels" or "cooling down".

    Only decay retrains: the labelled window scores below the reference by more than the margin,
    tested one-sided at `alpha`. Drift alone never does; it says where labels are wanted.

    `alpha` is the false-alarm rate of one look at one fixed window. A monitor that looks every hour
    has as many chances to be wrong, and looks at overlapping windows add up too: each window must
    therefore hold only labels that no earlier look has judged, of answers by the present champion.
    Even so k looks raise a false alarm with a probability of up to k times `alpha`.
    """

    def verdict(outcome: Outcome, *reasons: str) -> Verdict:
        return Verdict(outcome, (*reasons, *_drift_sentences(evidence.drift)), _retrain_rule(rules, cooldown_minutes))

    decay = evidence.decay
    if evidence.labelled < rules.min_labels:
        return verdict("collect more labels", _too_few_labels(evidence.labelled, rules))
    if decay is None:
        return verdict("keep", "The champion has no recorded score on the reference, so decay cannot be judged.")
    if not decay.p_value < rules.alpha:
        return verdict("keep", _no_decay(decay, rules))
    since = evidence.minutes_since_refresh
    if since is not None and since < cooldown_minutes:
        return verdict("cooling down", _cooling(since, cooldown_minutes), _decayed(decay, rules))
    return verdict("retrain", _decayed(decay, rules))


def _guarded(name: str, paired: PairedEvidence, other: str, rules: PromoteParams) -> tuple[bool, str]:
    passed = paired.interval.low > -rules.margin
    claim = "is not worse than" if passed else "is not shown to be no worse than"
    sentence = (
        f"On the {name} holdout the challenger {claim} the {other} by the margin of {_points(rules.margin)}: "
        f"the difference is {_difference(paired)}."
    )
    return passed, sentence


def _gained(name: str, paired: PairedEvidence, other: str, rules: PromoteParams) -> tuple[bool, str]:
    passed = paired.p_value < rules.alpha and paired.difference > 0
    claim = "is better than" if passed else "is not shown to be better than"
    sentence = (
        f"On the {name} holdout the challenger {claim} the {other}: the difference is {_difference(paired)}, "
        f"one-sided p {paired.p_value:.3g} {_against_level(paired.p_value, rules.alpha)}."
    )
    return passed, sentence


def _harm(name: str, paired: PairedEvidence, other: str, rules: PromoteParams) -> str:
    return (
        f"On the {name} holdout the challenger is worse than the {other} by more than the margin of "
        f"{_points(rules.margin)}: the difference is {_difference(paired)}."
    )


def _too_few(name: str, paired: PairedEvidence, rules: PromoteParams) -> str:
    return (
        f"The {name} holdout has {paired.rows} of the {rules.min_rows} rows that a verdict needs: "
        f"collect {rules.min_rows - paired.rows} more labels."
    )


def _too_few_labels(labelled: int, rules: WatchParams) -> str:
    return (
        f"{labelled} answers have been labelled since the last verdict and {rules.min_labels} are needed to judge decay: "
        f"collect {rules.min_labels - labelled} more labels."
    )


def _no_decay(decay: Decay, rules: WatchParams) -> str:
    return (
        f"The champion is not shown to have decayed by more than the margin of {_points(decay.margin)}: "
        f"{_scores(decay)}; one-sided p {decay.p_value:.3g} {_against_level(decay.p_value, rules.alpha)}."
    )


def _decayed(decay: Decay, rules: WatchParams) -> str:
    return (
        f"The champion has decayed by more than the margin of {_points(decay.margin)}: "
        f"{_scores(decay)}; one-sided p {decay.p_value:.3g} {_against_level(decay.p_value, rules.alpha)}."
    )


def _cooling(since: float, cooldown_minutes: float) -> str:
    return f"The last refresh was {since:.0f} minutes ago and the cooldown is {cooldown_minutes:.0f} minutes."


def _drift_sentences(drift: DriftEvidence | None) -> tuple[str, ...]:
    if drift is None:
        return ()
    rows = f"{drift.rows} rows against {drift.reference_rows}"
    if not drift.judged:
        return (f"Drift was not judged, for too few rows: {rows}.",)
    moved = {"Inputs": drift.inputs_drifted, "Predictions": drift.predictions_drifted}
    which = " and ".join(name for name, drifted in moved.items() if drifted).capitalize()
    if not which:
        return (f"Neither inputs nor predictions drifted ({rows}).",)
    columns = ", ".join(name for name, column in drift.columns.items() if column.drifted)
    wanted = "which alone never retrains but says that labels of these requests are wanted"
    return (f"{which} drifted ({columns}; {rows}), {wanted}.",)


def _promotion_rule(guard: str, gain: str, other: str, rules: PromoteParams) -> str:
    return (
        f"Promote where the challenger is not worse than the {other} by {_points(rules.margin)} on the {guard} "
        f"holdout (lower end of the interval) and better on the {gain} one (one-sided p below {rules.alpha:g}), "
        f"with at least {rules.min_rows} rows in each; reject at once where harm is shown."
    )


def _retrain_rule(rules: WatchParams, cooldown_minutes: float) -> str:
    return (
        f"Retrain where the labelled window scores below the reference by more than {_points(rules.margin)} "
        f"(one-sided p below {rules.alpha:g}), with at least {rules.min_labels} labels and "
        f"{cooldown_minutes:g} minutes after the last refresh; drift alone never retrains."
    )


def _scores(decay: Decay) -> str:
    return (
        f"it scores {_score(decay.window)} on the window and {_score(decay.reference)} on the reference, "
        f"a drop of {_points(decay.drop)} ({_interval(decay.interval)})"
    )


def _score(score: Score) -> str:
    return f"{100 * score.mean:.1f} ({_interval(score.interval)}, {score.rows} rows)"


def _difference(paired: PairedEvidence) -> str:
    return f"{100 * paired.difference:+.1f} points ({_interval(paired.interval)}, {paired.rows} rows)"


def _interval(interval: Interval) -> str:
    return f"{100 * interval.level:g}% interval {100 * interval.low:.1f} to {100 * interval.high:.1f}"


def _points(share: float) -> str:
    return f"{100 * share:.1f} points"


def _against_level(p_value: float, alpha: float) -> str:
    return f"below {alpha:g}" if p_value < alpha else f"not below {alpha:g}"
