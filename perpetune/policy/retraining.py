"""Whether the champion has decayed, so that a refresh is due."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from perpetune.params import WatchParams
from perpetune.policy.estimate import EstimatedFall
from perpetune.policy.phrases import against_level, interval, points, score
from perpetune.policy.verdict import Interval, Outcome, Score, Verdict


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
    """What the monitor saw. `decay` is None where the window or the reference has no score at all, `estimate` where
    answers have no confidence; `labelled_in_window` counts labels of the requests that drift and estimate are about."""

    labelled: int
    decay: Decay | None
    drift: DriftEvidence | None
    minutes_since_refresh: float | None
    estimate: EstimatedFall | None = None
    labelled_in_window: int = 0


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


def _too_few_labels(labelled: int, rules: WatchParams) -> str:
    return (
        f"{labelled} answers have been labelled since the last verdict and {rules.min_labels} are needed to judge decay: "
        f"collect {rules.min_labels - labelled} more labels."
    )


def _no_decay(decay: Decay, rules: WatchParams) -> str:
    return (
        f"The champion is not shown to have decayed by more than the margin of {points(decay.margin)}: "
        f"{_scores(decay)}; one-sided p {decay.p_value:.3g} {against_level(decay.p_value, rules.alpha)}."
    )


def _decayed(decay: Decay, rules: WatchParams) -> str:
    return (
        f"The champion has decayed by more than the margin of {points(decay.margin)}: "
        f"{_scores(decay)}; one-sided p {decay.p_value:.3g} {against_level(decay.p_value, rules.alpha)}."
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


def _retrain_rule(rules: WatchParams, cooldown_minutes: float) -> str:
    return (
        f"Retrain where the labelled window scores below the reference by more than {points(rules.margin)} "
        f"(one-sided p below {rules.alpha:g}), with at least {rules.min_labels} labels and "
        f"{cooldown_minutes:g} minutes after the last refresh; drift alone never retrains."
    )


def _scores(decay: Decay) -> str:
    return (
        f"it scores {score(decay.window)} on the window and {score(decay.reference)} on the reference, "
        f"a drop of {points(decay.drop)} ({interval(decay.interval)})"
    )
