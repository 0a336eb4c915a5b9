"""Whether the champion has decayed and a refresh should start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from math import ceil, exp, log, sqrt
from typing import NamedTuple, Protocol

from perpetune.errors import PerpetuneError
from perpetune.params import RefreshParams, WatchParams
from perpetune.policy.estimated_accuracy import EstimatedFall
from perpetune.policy.verdict import Interval, Outcome, Score, Verdict
from perpetune.policy.wording import amount, arrived_unasked, duration, interval, points, score

MIX_RATIO = 0.2  # of a fall: a smaller part from the mix is chance
MONTH_DAYS = 30
REJECTIONS = 1  # in a row, after which another refresh still follows
LONGEST_COOLDOWN = MONTH_DAYS * 24 * 60.0  # minutes; the back-off stops here


@dataclass(frozen=True)
class Decay:
    """The champion's labelled answers compared with its reference: the unseen rows that it was promoted with.

    - `window`: the score on the newest labels; `reference`: the score on the reference; `drop`: reference minus window,
      with an interval for a single check.
    - `since_release`: the score on all labels of the version, with an anytime-valid interval that allows for drift.
    - `evidence` of the most likely fall by at least `margin` (the effective one, smaller near 0 and 1): the number of
      labels in which a fall so surprising comes once by chance. It raises the alarm at `run_length`, and from `early` on
      it asks for urgent labels (None: never). 0: no fall by the margin is visible.
    - `before`: the score before that fall, on the reference and the champion's own earlier labels; `since_fall`: the score
      since, on `labels_since_fall` independent labels, None if no fall is visible. `bound` is `before` less the margin.
    - `mix`: how much of the fall is a shift of what is asked for; None without an alarm.
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
    before: Score | None = None
    since_fall: Score | None = None
    early: float | None = None
    mix: MixShift | None = None

    @property
    def alarms(self) -> bool:
        """Whether the evidence raises the alarm; never with a bound of 0, because no score is below it."""
        return self.bound > 0 and self.evidence >= self.run_length

    @property
    def is_early(self) -> bool:
        """Whether the evidence asks for urgent labels and raises no alarm yet."""
        return self.early is not None and not self.alarms and self.bound > 0 and self.evidence >= self.early

    @property
    def is_mix_shift(self) -> bool:
        """Whether the fall is a shift of the mix: a part of it that counts, and without it the alarm would not stand."""
        if self.mix is None or self.mix.mix < MIX_RATIO * (self.mix.within + self.mix.mix):
            return False
        return self.mix.evidence < self.run_length


@dataclass(frozen=True)
class MixShift:
    """A fall in two parts (Kitagawa, JASA 50 (1955) 1168): `within` the parts of the traffic, and from their `mix`.

    `by` names the parts: "label" or "time of day". `grew` is the part that became more frequent and is answered worst.
    `evidence` is that of the fall within the parts alone, which are known from `rows` rows as they are mixed now.
    """

    by: str
    within: float
    mix: float
    grew: str
    rows: float
    evidence: float = 0.0


@dataclass(frozen=True)
class ColumnDrift:
    """The drift test of one column: drifted if the p-value `value` is at most `threshold`."""

    test: str
    value: float
    threshold: float
    drifted: bool


@dataclass(frozen=True)
class InputDrift:
    """One test of the whole input: `auc` of a classifier between window and reference, 0.5 if it cannot tell them apart.

    `p_value` is one-sided for "they differ"; `level` is the probability of a false alarm of this test. `rows` and
    `reference_rows` are independent inputs, one of each user or session and of near duplicates. `own_neighbours` is the
    ratio of the new inputs' nearest neighbours that are new too, `own_by_chance` what it is if nothing changed; None
    without embeddings. `span` names the requests: the newest, or those of a week.
    """

    test: str
    auc: float
    p_value: float
    level: float
    drifted: bool
    rows: int | None = None
    reference_rows: int | None = None
    own_neighbours: float | None = None
    own_by_chance: float | None = None
    span: str = "the newest requests"


@dataclass(frozen=True)
class DriftEvidence:
    """Whether inputs and predictions drifted.

    `inputs` is the test that decides on the inputs; None in records of perpetune 0.1, in which the columns decided.
    `share` is the ratio of input columns that drifted, which explain it. `judged` is False, and `columns` empty, if the
    window or the reference has too few rows. `tested` is the time of the test: a check without one repeats the last result.
    `farthest` names the requests that are farthest from all known examples.
    """

    judged: bool
    rows: int
    reference_rows: int
    share: float
    inputs_drifted: bool
    predictions_drifted: bool
    columns: Mapping[str, ColumnDrift]
    inputs: InputDrift | None = None
    tested: datetime | None = None
    farthest: tuple[str, ...] = ()


@dataclass(frozen=True)
class RetrainEvidence:
    """The evidence of a check: new labels, decay, drift, and earlier refreshes.

    - `labelled`: labels since the last check; `labelled_in_all`: all labels of this version.
    - `decay`: None without labels or reference scores. `alarms_in_a_row`: consecutive checks with the alarm, this one
      included.
    - `unsuccessful_refreshes`: refreshes for decay that did not replace this champion; `device_hours`: training time of
      all refreshes of the last 30 days.
    - `estimate`: the score without labels, of several the one that labels bear out best; None if nothing says it.
      `other_estimates` are the others, by method. `labelled_in_window`: labels in the window of drift and estimate.
    - `labels_since_refresh`: labels of all versions since the last refresh with a verdict; None if there is none.
    - `metric`: the score: accuracy, slot_f1 or token_f1.
    - `unasked`: how many of the newest labels, those of `decay.window`, arrived unasked: no label request named them.
    - `independent`: how many of the new labels count: one a day of each user or session, and of equal inputs.
    - `askable`: requests of the window without a label that urgent labels may be asked for; 0 until the last lot of this fall has
      come, and after all of them.
    - `labels_per_day`: independent labels a day; None if too few have come.
    - `labels_of_change`: see `labels_of_change`.
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
    unasked: int = 0
    independent: int | None = None
    askable: int = 0
    labels_per_day: float | None = None
    labels_of_change: int | None = None
    other_estimates: Mapping[str, EstimatedFall] = field(default_factory=dict)


def should_retrain(evidence: RetrainEvidence, rules: WatchParams, refresh: RefreshParams) -> Verdict:
    """Decide whether to start a refresh.

    - "collect more labels": there are no new labels and no alarm; or decay was found, but there are fewer than
      `new_labels` labels since the last refresh or since the fall.
    - "keep": the labels do not show decay, a fall of the mean score by at least the margin.
    - "ask for labels": early evidence of decay, which urgent labels by lot will confirm or deny.
    - "mix shift": the score fell because other requests became frequent, not because the same ones are answered worse.
    - "confirming": decay was found in fewer checks in a row than `consecutive_checks`.
    - "over budget" and "cooling down": decay was found, and a refresh waits for the budget or for the cooldown, which
      grows by `backoff_factor` with each unsuccessful refresh, up to 30 days.
    - "retrain": decay was found and a refresh may start; or so many labels have come since the last refresh, which was for
      a change, that there is as much to learn again (`labels_to_follow`).

    Only decay and what follows from it trigger a refresh, drift does not. Without a change at least `run_length` labels
    come before a false alarm on average, whatever the number of checks and the size of the reference.

    Raises PerpetuneError if there are labels and no reference score to compare them with.
    """

    def verdict(outcome: Outcome, *reasons: str) -> Verdict:
        labels = evidence.decay.window.rows if evidence.decay else 0
        biased = arrived_unasked(evidence.unasked, labels)
        return Verdict(outcome, (*reasons, *biased, *_drift_sentences(evidence.drift)), _retrain_rule(rules, refresh))

    decay = evidence.decay
    if evidence.labelled == 0 and not (decay and decay.alarms):
        return verdict("collect more labels", _no_labels(evidence.labelled_in_all))
    if decay is None:
        raise PerpetuneError(
            "decay cannot be tested: the champion has no recorded score on the reference",
            do="`perpetune refresh` evaluates it",
        )
    if decay.bound <= 0:
        return verdict("keep", _low_reference(decay))
    reasons = [*_evidence_sentences(decay, evidence.labels_per_day), *_dependent(evidence)]
    follows = learns_again(evidence, refresh) and not limits_on(evidence, refresh)
    if not decay.alarms:
        if follows:
            return verdict("retrain", _more_of_change(evidence), *reasons)
        if decay.is_early and evidence.askable and rules.urgent_labels and rules.without_labels != "nothing":
            return verdict("ask for labels", _early(decay, rules), *reasons)
        return verdict("keep", _no_decay(decay), *reasons)
    if decay.mix is not None and decay.is_mix_shift and rules.mix_shift == "name":
        return verdict("mix shift", _mix_shift(decay, decay.mix), *reasons)
    if evidence.alarms_in_a_row < rules.consecutive_checks:
        return verdict("confirming", _confirming(evidence.alarms_in_a_row, rules), _decayed(decay), *reasons)
    waiting = waiting_for(evidence, refresh)
    if waiting and not follows:
        return verdict(waiting[0][0], *(why for _, why in waiting), _decayed(decay), *reasons)
    return verdict("retrain", _decayed(decay), *reasons)


class PastRefresh(NamedTuple):
    """A refresh: its trigger, the labels of all versions that it had, and those of them since the fall that started it.

    `since_fall` is None if no fall was visible, or the record is of an older release.
    """

    trigger: str
    labels: int
    since_fall: int | None = None


def labels_of_change(refreshes: Sequence[PastRefresh]) -> int | None:
    """The labels that the newest of the refreshes, oldest first, had of the change that it was for; None if decay started none.

    The last ones in a row that decay started are for one change. It came when scores began to fall before the first of
    these; if that is not known, at the earliest after the refresh before it.
    """
    count = 0
    while count < len(refreshes) and refreshes[-1 - count].trigger == "decay":
        count += 1
    if not count:
        return None
    first, newest = refreshes[-count], refreshes[-1]
    before = refreshes[-1 - count].labels if count < len(refreshes) else 0
    most = first.labels - before
    of_first = most if first.since_fall is None else min(first.since_fall, most)
    return newest.labels - first.labels + of_first


def learns_again(evidence: RetrainEvidence, refresh: RefreshParams) -> bool:
    """Whether so many labels have come since the last refresh for a change that another one is worth as much.

    A first rejection may be chance, and the next challenger has learned from more; after a second one the schedule goes on.
    """
    known, since, rejected = evidence.labels_of_change, evidence.labels_since_refresh, evidence.unsuccessful_refreshes
    if known is None or since is None or rejected > REJECTIONS:
        return False
    return since >= max(labels_to_follow(known, refresh), labels_wanted(rejected, refresh))


def labels_to_follow(known: int, refresh: RefreshParams) -> int:
    """The labels after which a refresh follows one that had `known` labels of a change: sqrt(known times `new_labels`).

    What more data brings falls with the logarithm of its number n, so that a wait of w labels loses about w^2 / 2n right
    answers, in some unit. A refresh is worth the same each time if w grows with the root of n. At first they
    wait for `new_labels`. Without that setting each waits for twice the labels of the one before.
    """
    return max(ceil(sqrt(known * (refresh.new_labels or known))), refresh.new_labels, 1)


class RefreshesBefore(Protocol):
    """Evidence on earlier refreshes; see RetrainEvidence."""

    @property
    def minutes_since_refresh(self) -> float | None: ...

    @property
    def unsuccessful_refreshes(self) -> int: ...

    @property
    def device_hours(self) -> float: ...


def waiting_for(evidence: RetrainEvidence, refresh: RefreshParams) -> list[tuple[Outcome, str]]:
    """What a refresh for decay waits for: (outcome, reason) pairs, the longest wait first; [] if it may start."""
    return [*limits_on(evidence, refresh), *_too_little_new(evidence, refresh)]


def limits_on(evidence: RefreshesBefore, refresh: RefreshParams) -> list[tuple[Outcome, str]]:
    """What any refresh waits for, budget and cooldown: (outcome, reason) pairs."""
    return [*_over_budget(evidence, refresh), *_cooling(evidence, refresh)]


def cooldown(unsuccessful_refreshes: int, refresh: RefreshParams) -> float:
    """Minutes between two refreshes after so many unsuccessful ones."""
    longest = max(LONGEST_COOLDOWN, refresh.cooldown_minutes)
    return min(with_backoff(refresh.cooldown_minutes, unsuccessful_refreshes, refresh), longest)


def labels_wanted(unsuccessful_refreshes: int, refresh: RefreshParams) -> int:
    """New labels that a refresh for decay waits for, after so many unsuccessful ones."""
    return ceil(with_backoff(refresh.new_labels, unsuccessful_refreshes, refresh))


def with_backoff(value: float, unsuccessful_refreshes: int, refresh: RefreshParams) -> float:
    """The value after exponential back-off by so many unsuccessful refreshes."""
    # exp(100) exceeds every limit, and a larger power could overflow.
    return value * exp(min(unsuccessful_refreshes * log(refresh.backoff_factor), 100.0))


def _over_budget(evidence: RefreshesBefore, refresh: RefreshParams) -> list[tuple[Outcome, str]]:
    budget = refresh.gpu_hours_per_month
    if budget is None or evidence.device_hours < budget:
        return []
    return [
        (
            "over budget",
            f"The refreshes of the last {MONTH_DAYS} days trained for {evidence.device_hours:.1f} device hours, and "
            f"{budget:g} are allowed.",
        )
    ]


def _cooling(evidence: RefreshesBefore, refresh: RefreshParams) -> list[tuple[Outcome, str]]:
    since, wanted = evidence.minutes_since_refresh, cooldown(evidence.unsuccessful_refreshes, refresh)
    if since is None or since >= wanted:
        return []
    failures = evidence.unsuccessful_refreshes
    grown = f", increased from {refresh.cooldown_minutes:.0f} after {failures} unsuccessful ones" if failures else ""
    return [
        (
            "cooling down",
            f"The last refresh was {since:.0f} minutes ago and the cooldown is {wanted:.0f} minutes{grown}.",
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
        f"{since} of {wanted} have come since the last one"
        if since_refresh <= since_fall
        else f"{since} of {wanted} have come since scores began to fall"
    )
    return [("collect more labels", f"The next refresh waits for {wanted - since} more labels: {why}.")]


def _no_labels(in_all: int) -> str:
    before = f"after {in_all} before" if in_all else "and none before"
    return f"No answer of the champion was labelled since the last check, {before}: collect labels to test for decay."


def _low_reference(decay: Decay) -> str:
    return (
        f"The champion was promoted with {score(decay.reference)}, from which a drop by more than the margin of "
        f"{points(decay.margin)} is not possible."
    )


def _confirming(alarms: int, rules: WatchParams) -> str:
    return f"Decay was found in {alarms} of the {rules.consecutive_checks} checks in a row that must find it."


def _no_decay(decay: Decay) -> str:
    return f"The champion is not shown to have decayed by more than the margin of {points(decay.margin)}: {_scores(decay)}."


def _decayed(decay: Decay) -> str:
    return f"The champion has decayed by more than the margin of {points(decay.margin)}: {_scores(decay)}."


def _more_of_change(evidence: RetrainEvidence) -> str:
    return (
        f"The last refresh was for decay and had {evidence.labels_of_change} labels of the change; "
        f"{evidence.labels_since_refresh} more have come, so that there is as much to learn again."
    )


def _scores(decay: Decay) -> str:
    return (
        f"it scores {score(decay.window)} on its newest labels and was promoted with {score(decay.reference)}, "
        f"a drop of {points(decay.drop)} ({interval(decay.interval)})"
    )


def _early(decay: Decay, rules: WatchParams) -> str:
    return (
        f"The labels are early evidence of decay, {amount(decay.evidence)} of {amount(decay.run_length)}: {rules.urgent_labels} "
        "requests drawn by lot are to be labelled first, to confirm or deny it."
    )


def _mix_shift(decay: Decay, found: MixShift) -> str:
    return (
        f"Requests of {found.by} {found.grew} have become more frequent, which explains {points(found.mix)} of the fall: "
        f"within each {found.by} the score fell by {points(found.within)}, which is not shown to be decay: the evidence of "
        f"that is {amount(found.evidence)} of {amount(decay.run_length)}."
    )


def evidence_of_fall(decay: Decay) -> str:
    """The most likely fall and its evidence, as one sentence without its full stop."""
    needed = f"{amount(decay.run_length)} raise the alarm"
    if decay.before is None or decay.since_fall is None:
        return f"No fall by the margin is visible; an evidence of {needed}"
    return (
        f"The fall is most likely from {score(decay.before)} to {score(decay.since_fall)}; its evidence is "
        f"{amount(decay.evidence)}, and {needed}"
    )


def _evidence_sentences(decay: Decay, labels_per_day: float | None) -> list[str]:
    return [
        f"{evidence_of_fall(decay)}: without a change at least {amount(decay.run_length)} labels come before a false alarm, "
        f"on average{_in_time(decay.run_length, labels_per_day)}.",
        f"Over all its labels it scores {score(decay.since_release)}; the interval is valid for any number of checks.",
    ]


def _in_time(labels: float, per_day: float | None) -> str:
    return f" ({duration(labels / per_day)} at {per_day:.0f} labels a day)" if per_day and per_day >= 1 else ""


def _dependent(evidence: RetrainEvidence) -> list[str]:
    if evidence.independent is None or evidence.independent >= evidence.labelled:
        return []
    return [
        f"{evidence.independent} of the {evidence.labelled} new labels are independent and count: one a day of each user or "
        "session, and of equal inputs."
    ]


def _drift_sentences(drift: DriftEvidence | None) -> tuple[str, ...]:
    if drift is None:
        return ()
    rows = f"{drift.rows} rows against {drift.reference_rows}"
    if not drift.judged:
        return (f"Drift was not tested because there are too few independent rows: {rows}.",)
    found = {"Inputs": drift.inputs_drifted, "Predictions": drift.predictions_drifted}
    which = " and ".join(name for name, drifted in found.items() if drifted).capitalize()
    tested = [f"tested {drift.tested:%Y-%m-%d %H:%M %Z}"] if drift.tested else []
    told = "; ".join([*([_test_of_inputs(drift.inputs)] if drift.inputs else []), rows, *tested])
    if not which:
        return (f"Neither of inputs nor of predictions is drift shown ({told}).",)
    columns = ", ".join(name for name, column in drift.columns.items() if column.drifted)
    because = "; ".join([*([columns] if columns else []), told])
    return (f"{which} drifted ({because}), which does not trigger a refresh: label some of these requests.",)


def _test_of_inputs(found: InputDrift) -> str:
    """As "a classifier tells inputs of the window from the reference: AUC 0.93, p 0.002 at level 0.01"."""
    verb = "tells" if found.drifted else "tries to tell"
    near = ""
    if found.own_neighbours is not None and found.own_by_chance is not None:
        near = (
            f", and {found.own_neighbours:.0%} of the nearest neighbours of new inputs are new "
            f"({found.own_by_chance:.0%} by chance)"
        )
    return (
        f"a classifier {verb} inputs of the window from the reference: AUC {found.auc:.2f}{near}, p {found.p_value:.3g} at "
        f"level {found.level:.2g}"
    )


def _retrain_rule(rules: WatchParams, refresh: RefreshParams) -> str:
    checks = f" in {rules.consecutive_checks} checks in a row" if rules.consecutive_checks > 1 else ""
    budget = refresh.gpu_hours_per_month
    within = "" if budget is None else f", within {budget:g} device hours in {MONTH_DAYS} days"
    return (
        f"Retrain if the evidence reaches {amount(rules.run_length)}{checks} that the mean score fell, and by at least "
        f"{points(rules.margin)} (near 0 and 100: if errors double or right answers halve), {refresh.cooldown_minutes:g} minutes and {refresh.new_labels} labels after the last refresh, and as "
        f"many labels after the fall, all multiplied by {refresh.backoff_factor:g} for each unsuccessful refresh{within}; and again "
        f"if {amount(refresh.new_labels)} more have come, or more the more there are of that change; drift does not trigger a refresh."
    )
