"""Whether a version on trial takes over, and whether one that took over goes back: pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from perpetune.params import ReleaseParams
from perpetune.policy.retraining import Decay
from perpetune.policy.verdict import Interval, Verdict
from perpetune.policy.wording import amount, interval, points, score

MEASURES = 3  # quality, errors, slow answers: each is judged at a third of alpha (Bonferroni)


@dataclass(frozen=True)
class Compared:
    """Challenger minus champion as seen so far; the interval holds at all looks at once.

    `rows` are the challenger's observations, `champion_rows` the champion's.
    """

    challenger: float
    champion: float
    difference: float
    interval: Interval
    rows: int
    champion_rows: int


@dataclass(frozen=True)
class TrialEvidence:
    """What production showed of a version on trial, since the trial began.

    `requests` are those that it was given. `errors` and `slow` are shares of requests and of answers. `quality` is 0
    to 1: how far answers agree with labels or, where there are none, the score that people gave.
    """

    strategy: Literal["canary", "shadow"]
    requests: int
    quality: Compared
    errors: Compared
    slow: Compared


@dataclass(frozen=True)
class RollbackEvidence:
    """A champion found decayed: within how many of its labels, what could serve instead, and how well.

    `alarmed_by` labels judged, the alarm that stands had come; within the first `window` it is early. `previous_score` is the previous champion's on the holdout that the decay is measured against, None if it was
    not asked; `metric` names both scores.
    """

    decay: Decay
    alarmed_by: int
    window: int
    previous: str | None
    previous_score: float | None
    metric: str = ""


@dataclass(frozen=True)
class ByHand:
    """Somebody went back to the previous version: what for, from and to which, and how soon that one answered.

    `seconds` is None where no gateway runs.
    """

    reason: str
    rolled_back: str
    restored: str
    seconds: float | None


@dataclass(frozen=True)
class PromotedByHand:
    """Somebody had a version take over: what for, in place of which, and what had been decided on it before.

    `previous` is None where nothing was champion, `verdict` where nothing had been decided, and `seconds` where no
    gateway runs.
    """

    reason: str
    version: str
    previous: str | None
    verdict: str | None
    seconds: float | None


def should_release(evidence: TrialEvidence, rules: ReleaseParams) -> Verdict:
    """Decide on a version on trial: "promote", "abort" or "continue".

    Harm is a difference shown to be beyond the margin: quality's upper bound below minus the margin, or the lower
    bound of errors or slow answers above it. It aborts at once, however few requests there were: the bounds hold at
    every look.

    The version has passed the offline gate, so the trial looks for harm that the holdouts could not show. It is
    promoted early where enough labels show that quality is kept and neither errors nor slow answers are shown to have
    grown. At `max_requests` errors and slow answers must be shown to be within the margin, and the quality seen must
    be too; that labels were too few for an interval as narrow as that does not undo what the gate showed on paired
    rows. Else it is aborted.
    """

    def verdict(outcome: Literal["promote", "abort", "continue"], *reasons: str) -> Verdict:
        return Verdict(outcome, reasons, _trial_rule(rules))

    harm = _harm(evidence, rules)
    if harm:
        return verdict("abort", *harm)
    quality, costs = evidence.quality, _costs(evidence)
    labelled = min(quality.rows, quality.champion_rows) >= rules.min_labels
    kept = quality.interval.low > -rules.margin
    if labelled and kept and all(cost.interval.low <= 0 for cost in costs.values()):
        return verdict("promote", _quality_kept(quality, rules), *(_seen(*cost) for cost in costs.items()))
    if evidence.requests < rules.max_requests:
        return verdict("continue", _not_yet(evidence, rules))
    unproven = [_unproven(*cost, rules) for cost in costs.items() if not cost[1].interval.high < rules.margin]
    if unproven:
        return verdict("abort", *unproven)
    within = [_within(*cost, rules) for cost in costs.items()]
    if not labelled:
        return verdict("promote", _too_few_labels(evidence, rules), *within)
    if quality.difference < -rules.margin:
        return verdict("abort", _seems_worse(evidence, rules))
    return verdict("promote", _seems_as_good(evidence, rules), *within)


def should_roll_back(evidence: RollbackEvidence) -> Verdict | None:
    """Decide whether a decayed champion gives way to the previous one; None where a refresh is the answer.

    Only an alarm within the first `window` labels asks: what is bad from the start was released wrongly, and what
    served well before may serve again at once. What decays later has met a world that changed, where the previous
    version would do no better. Nor is there anything to go back to where that one was already known to score below
    this.
    """
    decay, previous, known = evidence.decay, evidence.previous, evidence.previous_score
    if previous is None or evidence.alarmed_by > evidence.window or (known is not None and known <= decay.window.mean):
        return None
    before = "" if known is None else f", which scored {100 * known:.1f} when the two were compared"
    reason = (
        f"The first {evidence.alarmed_by} labels since its release show decay by more than the margin of "
        f"{points(decay.margin)}: the champion scores {score(decay.window)} on its newest labels and was promoted with "
        f"{score(decay.reference)}, so back to version {previous}{before}."
    )
    evidence_says = (
        f"The evidence that its mean score is below the threshold of {100 * decay.bound:.1f} is "
        f"{amount(decay.evidence)}, and {amount(decay.run_length)} raise the alarm."
    )
    rule = (
        f"Go back where the alarm comes within the first {evidence.window} labels after a release and the previous "
        f"champion is not known to be worse."
    )
    return Verdict("roll back", (reason, evidence_says), rule)


def by_hand(evidence: ByHand) -> Verdict:
    """What a person decided, as a verdict."""
    to = f"Version {evidence.rolled_back} gave way to version {evidence.restored}"
    return Verdict("roll back", (f"{to}: {evidence.reason}",), "A person asked for it.")


def promoted_by_hand(evidence: PromotedByHand) -> Verdict:
    """What a person decided, as a verdict."""
    position = f"Version {evidence.version} was promoted by hand"
    instead = f" in place of version {evidence.previous}" if evidence.previous else ""
    before = f"; the verdict before was: {evidence.verdict}" if evidence.verdict else ""
    return Verdict("promote", (f"{position}{instead}: {evidence.reason}{before}",), "A person asked for it.")


def _costs(evidence: TrialEvidence) -> Mapping[str, Compared]:
    return {"errors": evidence.errors, "slow answers": evidence.slow}


def _harm(evidence: TrialEvidence, rules: ReleaseParams) -> list[str]:
    found = []
    if evidence.quality.interval.high < -rules.margin:
        found.append(
            f"The challenger answers worse than the champion by more than the margin of {points(rules.margin)}: "
            f"quality is {_difference(evidence.quality)}."
        )
    for name, cost in _costs(evidence).items():
        if cost.interval.low > rules.margin:
            found.append(
                f"The challenger has more {name} than the champion by more than the margin of "
                f"{points(rules.margin)}: {_difference(cost)}."
            )
    return found


def _quality_kept(quality: Compared, rules: ReleaseParams) -> str:
    return (
        f"The challenger does not answer worse than the champion by the margin of {points(rules.margin)}: "
        f"quality is {_difference(quality)}."
    )


def _seen(name: str, cost: Compared) -> str:
    return f"More {name} are not shown: {_difference(cost)}."


def _not_yet(evidence: TrialEvidence, rules: ReleaseParams) -> str:
    quality = evidence.quality
    return (
        f"Neither harm nor kept quality is shown after {evidence.requests} of at most {rules.max_requests} requests: quality is "
        f"{_difference(quality)}; {rules.min_labels} labels are wanted on each side."
    )


def _unproven(name: str, cost: Compared, rules: ReleaseParams) -> str:
    return (
        f"After {rules.max_requests} requests {name} are still not shown to be within the margin of "
        f"{points(rules.margin)}: {_difference(cost)}."
    )


def _within(name: str, cost: Compared, rules: ReleaseParams) -> str:
    return f"There are not more {name} than the margin of {points(rules.margin)} allows: {_difference(cost)}."


def _too_few_labels(evidence: TrialEvidence, rules: ReleaseParams) -> str:
    quality = evidence.quality
    return (
        f"Promoted on errors and slow answers alone, after {evidence.requests} requests: {quality.rows} labelled "
        f"answers of the challenger and {quality.champion_rows} of the champion are fewer than the {rules.min_labels} "
        f"that a word on quality needs, and the holdouts have shown it before."
    )


def _seems_worse(evidence: TrialEvidence, rules: ReleaseParams) -> str:
    return (
        f"After {evidence.requests} requests the quality seen is below the champion's by more than the margin of "
        f"{points(rules.margin)}, though not beyond doubt: {_difference(evidence.quality)}."
    )


def _seems_as_good(evidence: TrialEvidence, rules: ReleaseParams) -> str:
    return (
        f"After {evidence.requests} requests the quality seen is within the margin of {points(rules.margin)}, which "
        f"the labels are too few to prove and the holdouts have shown before: {_difference(evidence.quality)}."
    )


def _difference(compared: Compared) -> str:
    return (
        f"{100 * compared.challenger:.1f} against {100 * compared.champion:.1f}, a difference of "
        f"{100 * compared.difference:+.1f} points ({interval(compared.interval)}; {compared.rows} and "
        f"{compared.champion_rows} rows)"
    )


def _trial_rule(rules: ReleaseParams) -> str:
    return (
        f"Abort where quality, errors or slow answers (more than {rules.slow_seconds:g} s) are shown to be worse by "
        f"more than {points(rules.margin)}, at any look; promote where quality is shown to be kept within it, with "
        f"at least {rules.min_labels} labels on each side, and no more errors or slow answers are shown; after "
        f"{rules.max_requests} requests promote where errors and slow answers are within it, and the quality seen "
        f"where there are labels. The intervals hold together with {100 * (1 - rules.alpha):g}% at all looks."
    )
