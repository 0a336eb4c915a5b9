"""Whether the champion has decayed, so that a refresh is due."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, exp, log
from typing import Protocol

from perpetune.params import RefreshParams, WatchParams
from perpetune.policy.estimated_accuracy import EstimatedFall
from perpetune.policy.verdict import Interval, Outcome, Score, Verdict
from perpetune.policy.wording import amount, interval, points, score

MONTH_DAYS = 30
LONGEST_COOLDOWN = MONTH_DAYS * 24 * 60.0  # minutes that backing off stops at


@dataclass(frozen=True)
class Decay:
    """How the champion's labelled answers stand to what it was promoted with.

    `window` is its score on the newest labels, `reference` the one on unseen rows that it was promoted with, and
    `drop` the second minus the first: intervals as for one look. `since_release` is the score on all its labels, with
    an interval that holds at all looks together and whatever has changed meanwhile. The alarm is due where `evidence` that its mean score is below
    `bound` reaches `run_length`; while the mean is not below, a label adds at most 1 to it on average.
    `labels_since_fall` counts those since the fall most likely began, if there was one.
    `restarted_from` is the bound that the evidence was about at the last look, if settings have moved it since.
    """

    window: Score
    reference: Score
    since_release: Score
    drop: float
    interval: Interval
    margin: float
    bound: float
    evidence: float
    run_length: float
    labels_since_fall: int
    restarted_from: float | None = None

    @property
    def alarms(self) -> bool:
        """Nothing falls below a bound of 0, so that what counts up there is no evidence."""
        return self.bound > 0 and self.evidence >= self.run_length


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
    """What the monitor saw, and what refreshes there were.

    `labelled` counts the labels that came since the last look, `labelled_in_all` those of this version. `decay` is
    None where the labels or the reference have no score at all. `alarms_in_a_row` counts the looks at new labels, this
    one too. `unsuccessful_refreshes` are those that decay has started since the champion was made, none of which replaced it;
    `device_hours` are what all refreshes of the last 30 days have trained. `estimate` is None where answers have no
    confidence; `labelled_in_window` counts labels of the requests that drift and estimate are about.
    `labels_since_refresh` counts those of whatever version since the last refresh reached a verdict, None if none has.
    `metric` names the score: accuracy, slot_f1 or token_f1.
    """

    labelled: int
    labelled_in_all: int
    decay: Decay | None
    alarms_in_a_row: int
    drift: DriftEvidence | None
    minutes_since_refresh: float | None
    unsuccessful_refreshes: int
    device_hours: float
    estimate: EstimatedFall | None = None
    labelled_in_window: int = 0
    labels_since_refresh: int | None = None
    metric: str = ""


def should_retrain(evidence: RetrainEvidence, rules: WatchParams, refresh: RefreshParams) -> Verdict:
    """Decide whether to start a refresh.

    - "collect more labels": nothing new is labelled, and no alarm stands.
    - "keep": the labels do not show decay, which is a mean score below what was promised less the margin.
    - "confirming": they do, in fewer looks in a row than `persistence`.
    - "over budget" and "cooling down": they do, and a refresh must wait for the budget, or for the cooldown, which is
      `back_off` times as long for each refresh that has not helped, up to 30 days.
    - "collect more labels" too: they do, and fewer than `new_labels` have come since the last refresh, or since the fall.
    - "retrain": they do, and nothing holds it up.

    Only decay retrains; drift alone never does, but says where labels are wanted. There are at least `run_length`
    labels before a false alarm on average, however often one looks, unless the champion was never as good as the
    lower confidence bound of what it was promoted with: that chance is at most 1 - `reference_confidence`.
    """

    def verdict(outcome: Outcome, *reasons: str) -> Verdict:
        return Verdict(outcome, (*reasons, *_drift_sentences(evidence.drift)), _retrain_rule(rules, refresh))

    decay = evidence.decay
    if evidence.labelled == 0 and not (decay and decay.alarms):
        return verdict("collect more labels", _no_labels(evidence.labelled_in_all))
    if decay is None:
        return verdict("keep", "The champion has no recorded score on the reference, so decay cannot be judged.")
    if decay.bound <= 0:
        return verdict("keep", _nothing_to_lose(decay))
    told = _evidence_sentences(decay)
    if not decay.alarms:
        return verdict("keep", _no_decay(decay), *told)
    if evidence.alarms_in_a_row < rules.persistence:
        return verdict("confirming", _confirming(evidence.alarms_in_a_row, rules), _decayed(decay), *told)
    waiting = held_up(evidence, refresh)
    if waiting:
        return verdict(waiting[0][0], *(why for _, why in waiting), _decayed(decay), *told)
    return verdict("retrain", _decayed(decay), *told)


class RefreshesBefore(Protocol):
    """What evidence says of the refreshes before it; see RetrainEvidence."""

    @property
    def minutes_since_refresh(self) -> float | None: ...

    @property
    def unsuccessful_refreshes(self) -> int: ...

    @property
    def device_hours(self) -> float: ...


def held_up(evidence: RetrainEvidence, refresh: RefreshParams) -> list[tuple[Outcome, str]]:
    """What a refresh for decay must wait for, and why, the longest first; empty where it may start."""
    return [*limited(evidence, refresh), *_too_little_new(evidence, refresh)]


def limited(evidence: RefreshesBefore, refresh: RefreshParams) -> list[tuple[Outcome, str]]:
    """What any refresh must wait for, and why: the budget and the cooldown."""
    return [*_over_budget(evidence, refresh), *_cooling(evidence, refresh)]


def cooldown(unsuccessful_refreshes: int, refresh: RefreshParams) -> float:
    """Minutes between two refreshes for decay after so many that did not help."""
    longest = max(LONGEST_COOLDOWN, refresh.cooldown_minutes)
    return min(grown(refresh.cooldown_minutes, unsuccessful_refreshes, refresh), longest)


def labels_wanted(unsuccessful_refreshes: int, refresh: RefreshParams) -> int:
    """New labels before decay starts a refresh, after so many that did not help."""
    return ceil(grown(refresh.new_labels, unsuccessful_refreshes, refresh))


def grown(value: float, unsuccessful_refreshes: int, refresh: RefreshParams) -> float:
    """What backs off, after so many refreshes that did not help."""
    # exp(100) is beyond every month, and a power of many refreshes would overflow.
    return value * exp(min(unsuccessful_refreshes * log(refresh.back_off), 100.0))


def _over_budget(evidence: RefreshesBefore, refresh: RefreshParams) -> list[tuple[Outcome, str]]:
    budget = refresh.gpu_hours_per_month
    if budget is None or evidence.device_hours < budget:
        return []
    return [
        (
            "over budget",
            f"The refreshes of the last {MONTH_DAYS} days have trained {evidence.device_hours:.1f} device hours, and "
            f"{budget:g} are allowed.",
        )
    ]


def _cooling(evidence: RefreshesBefore, refresh: RefreshParams) -> list[tuple[Outcome, str]]:
    since, wanted = evidence.minutes_since_refresh, cooldown(evidence.unsuccessful_refreshes, refresh)
    if since is None or since >= wanted:
        return []
    failures = evidence.unsuccessful_refreshes
    helped = f", grown from {refresh.cooldown_minutes:.0f} after {failures} that did not help" if failures else ""
    return [
        (
            "cooling down",
            f"The last refresh was {since:.0f} minutes ago and the cooldown is {wanted:.0f} minutes{helped}.",
        )
    ]


def _too_little_new(evidence: RetrainEvidence, refresh: RefreshParams) -> list[tuple[Outcome, str]]:
    wanted, decay = labels_wanted(evidence.unsuccessful_refreshes, refresh), evidence.decay
    since_refresh = wanted if evidence.labels_since_refresh is None else evidence.labels_since_refresh
    since_fall = decay.labels_since_fall if decay is not None and decay.alarms else wanted
    since = min(since_refresh, since_fall)
    if since >= wanted:
        return []
    why = (
        f"{since} of {wanted} have come since the last one, which it would only repeat"
        if since_refresh <= since_fall
        else f"{since} of {wanted} have come since scores began to fall, too few to learn from and judge by"
    )
    return [("collect more labels", f"The next refresh waits for {wanted - since} more labels: {why}.")]


def _no_labels(in_all: int) -> str:
    before = f"after {in_all} before" if in_all else "and none before"
    return f"No answer of the champion has been labelled since the last look, {before}: collect labels to judge decay."


def _nothing_to_lose(decay: Decay) -> str:
    return (
        f"The champion was promoted with {score(decay.reference)}, from which a drop by more than the margin of "
        f"{points(decay.margin)} cannot be told."
    )


def _confirming(alarms: int, rules: WatchParams) -> str:
    return f"Decay was found in {alarms} of the {rules.persistence} looks in a row that must find it."


def _no_decay(decay: Decay) -> str:
    return f"The champion is not shown to have decayed by more than the margin of {points(decay.margin)}: {_scores(decay)}."


def _decayed(decay: Decay) -> str:
    return f"The champion has decayed by more than the margin of {points(decay.margin)}: {_scores(decay)}."


def _scores(decay: Decay) -> str:
    return (
        f"it scores {score(decay.window)} on its newest labels and was promoted with {score(decay.reference)}, "
        f"a drop of {points(decay.drop)} ({interval(decay.interval)})"
    )


def _evidence_sentences(decay: Decay) -> list[str]:
    needed = amount(decay.run_length)
    told = [
        f"The evidence that its mean score is below the threshold of {100 * decay.bound:.1f} is "
        f"{amount(decay.evidence)}, and {needed} raise the alarm: without decay at least {needed} labels come before a "
        f"false alarm, on average.",
        f"Over all its labels it scores {score(decay.since_release)}, an interval that holds however often one looks.",
    ]
    if decay.restarted_from is not None:
        told.append(
            f"The evidence has begun anew with the labels of this look, since the settings hold the champion to "
            f"{100 * decay.bound:.1f} now and held it to {100 * decay.restarted_from:.1f} before."
        )
    return told


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


def _retrain_rule(rules: WatchParams, refresh: RefreshParams) -> str:
    checks = f" in {rules.persistence} looks in a row" if rules.persistence > 1 else ""
    budget = refresh.gpu_hours_per_month
    within = "" if budget is None else f", within {budget:g} device hours in {MONTH_DAYS} days"
    return (
        f"Retrain where the evidence reaches {amount(rules.run_length)}{checks} that the mean score is more than "
        f"{points(rules.margin)} below the one promised (its lower bound at {rules.reference_confidence:.0%} "
        f"confidence), {refresh.cooldown_minutes:g} minutes and {refresh.new_labels} labels after the last refresh, and as "
        f"many labels after the fall, each {refresh.back_off:g} times as much for each refresh that did not help{within}; "
        f"drift alone never retrains."
    )
