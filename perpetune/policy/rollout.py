"""Verdicts on a trial and on a rollback."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

from perpetune.params import ReleaseParams
from perpetune.policy.retraining import Decay, evidence_of_fall
from perpetune.policy.verdict import Interval, Verdict
from perpetune.policy.wording import arrived_unasked, interval, points, score

ALPHA = 0.05  # of the test that the previous version is better on the same inputs
LEAST_VARIANCE = 0.01  # of a row's score: scores near 0 or 1 must not make few labels look like many
MEASURES = 3  # quality, errors, slow answers: each is tested at a third of alpha (Bonferroni)


@dataclass(frozen=True)
class Comparison:
    """Challenger minus champion so far, with an anytime-valid interval.

    `rows` counts the challenger's observations, `champion_rows` the champion's. If quality is compared on the same requests,
    `differing` of them are answered differently, and `labels` of those are labelled, of `asked` that people were asked for;
    `challenger` and `champion` are then their scores on these. `last` is the interval of the last look, which is fixed
    beforehand: it holds together with the other one.
    """

    challenger: float
    champion: float
    difference: float
    interval: Interval
    rows: int
    champion_rows: int
    differing: int | None = None
    labels: int | None = None
    asked: int = 0
    last: Interval | None = None


@dataclass(frozen=True)
class TrialEvidence:
    """The evidence of a trial since its start.

    `requests` counts the challenger's requests. `errors` is a ratio of requests and `slow` of answers. `quality` (0 to 1)
    is the agreement with labels or, without labels, the mean feedback score. Of the `feedback` rows that it rests on,
    `unasked` arrived without a label request. `awaited` labels may still come of the requests that decide.
    `quality_margin` is the margin of quality if it is less than `release.margin`: with `promote.costs` quality is by cost.
    """

    strategy: Literal["canary", "shadow"]
    requests: int
    quality: Comparison
    errors: Comparison
    slow: Comparison
    feedback: int = 0
    unasked: int = 0
    awaited: int = 0
    quality_margin: float | None = None


@dataclass(frozen=True)
class Replay:
    """The previous version on the newest labelled inputs of the champion, and the champion on the same, both 0 to 1.

    `difference` is previous minus champion; `p_value` is one-sided for "the previous version is better".
    """

    champion: float
    previous: float
    difference: float
    interval: Interval
    p_value: float
    rows: int


@dataclass(frozen=True)
class RollbackEvidence:
    """The evidence on rolling back a decayed champion.

    `alarmed_by`: labels of this version up to the alarm; within the first `window` labels it is early.
    `previous_score`: that of the previous champion on the holdout that decay is measured against; None if it was not
    evaluated there. `metric`: the name of both scores, accuracy, slot_f1 or token_f1. `replay`: the previous
    version asked the same inputs; None if it could not be, and then `not_asked` says why. `unasked`: how many of the
    labels of the window arrived unasked.
    """

    decay: Decay
    alarmed_by: int
    window: int
    previous: str | None
    previous_score: float | None
    metric: str = ""
    replay: Replay | None = None
    not_asked: str = ""
    unasked: int = 0


@dataclass(frozen=True)
class ManualRollback:
    """A manual rollback: the reason, the two versions, and the seconds until the restored one served.

    `seconds` is None if no gateway runs.
    """

    reason: str
    rolled_back: str
    restored: str
    seconds: float | None


@dataclass(frozen=True)
class ManualPromotion:
    """A manual promotion: the reason, the champion that it replaced, and the version's earlier verdict.

    `previous` is None without a champion, `verdict` if there was none, and `seconds` if no gateway runs.
    """

    reason: str
    version: str
    previous: str | None
    verdict: str | None
    seconds: float | None


def should_release(evidence: TrialEvidence, rules: ReleaseParams) -> Verdict:
    """Decide on a trial: "promote", "abort" or "continue".

    Harm is a difference beyond the margin: quality's upper bound below minus the margin, or the lower bound of errors or
    slow answers above it. It aborts at once, because the bounds are valid at every check.

    The version is promoted early if quality is shown to be within the margin and neither errors nor slow answers have
    increased. At `max_requests` errors and slow answers must be within the margin by their intervals; quality is looked at
    a last time when the labels that are awaited have come, at the level that the early checks have left. If it is not shown
    to be within the margin, `accept_unproven` says what follows.
    """

    def verdict(outcome: Literal["promote", "abort", "continue"], *reasons: str) -> Verdict:
        unasked = arrived_unasked(evidence.unasked, evidence.feedback)
        return Verdict(outcome, (*reasons, *unasked), _trial_rule(rules, of_quality))

    of_quality = rules_for_quality(rules, evidence.quality_margin)
    harm = _harm(evidence, rules, of_quality)
    if harm:
        return verdict("abort", *harm)
    quality, costs = evidence.quality, _error_measures(evidence)
    compared = min(quality.rows, quality.champion_rows) >= rules.min_labels
    kept = quality.interval.low > -of_quality.margin
    if compared and kept and all(cost.interval.low <= 0 for cost in costs.values()):
        return verdict("promote", _quality_kept(quality, of_quality), *(_not_more(*cost) for cost in costs.items()))
    if evidence.requests < rules.max_requests:
        return verdict("continue", _not_yet(evidence, rules))
    unproven = [_unproven(*cost, rules) for cost in costs.items() if not cost[1].interval.high < rules.margin]
    if unproven:
        return verdict("abort", *unproven)
    within = [_within(*cost, rules) for cost in costs.items()]
    if compared and (kept or _kept_at_last(quality, of_quality)):
        return verdict("promote", _quality_kept(quality, of_quality), *within)
    if evidence.awaited:
        return verdict("continue", _awaiting(evidence, rules))
    if not _labelled(quality, rules):
        if rules.accept_unproven == "never":
            return verdict("abort", _unlabelled(evidence, rules))
        if quality.labels and quality.difference < -of_quality.margin:
            return verdict("abort", _seems_worse(evidence, of_quality))
        return verdict("promote", _too_few_labels(evidence, rules), *within)
    if quality.difference < -of_quality.margin:
        return verdict("abort", _seems_worse(evidence, of_quality))
    if rules.accept_unproven != "observed":
        return verdict("abort", _not_shown(evidence, of_quality))
    return verdict("promote", _seems_as_good(evidence, of_quality), *within)


def rules_for_quality(rules: ReleaseParams, margin: float | None) -> ReleaseParams:
    """The settings with the margin of quality, if it has one of its own."""
    return rules if margin is None else rules.model_copy(update={"margin": min(rules.margin, margin)})


def last_alpha(rules: ReleaseParams) -> float:
    """The one-sided level of the last look at quality: what promotions at earlier checks have left of `release.alpha`.

    A version must pass all three measures, so that each may be tested at the whole level (intersection-union test; Berger,
    Technometrics 1982;24:295). The lower end of the interval that holds at all checks has spent half of a third of it.
    """
    return rules.alpha - rules.alpha / MEASURES / 2


def _kept_at_last(quality: Comparison, rules: ReleaseParams) -> bool:
    return quality.last is not None and quality.last.low > -rules.margin


def _labelled(quality: Comparison, rules: ReleaseParams) -> bool:
    """Whether there are labels enough to speak of quality: half of those asked for, or as many as the setting wants."""
    if quality.labels is None:
        return min(quality.rows, quality.champion_rows) >= rules.min_labels
    return quality.labels >= rules.min_labels or 0 < quality.asked <= 2 * quality.labels


def should_roll_back(evidence: RollbackEvidence) -> Verdict | None:
    """Decide whether to roll back a decayed champion; None if not, then a refresh is due.

    Only an alarm within the first `window` labels after the release rolls back: such a version was bad from the start.
    Later decay comes from a change of traffic, on which the previous version would be no better. The previous champion
    must be shown to be better on the same inputs (one-sided, at `ALPHA`). If it could not be asked, its score in the
    evaluation of the champion must be known, and above the champion's now.
    """
    decay, previous, known = evidence.decay, evidence.previous, evidence.previous_score
    if previous is None or evidence.alarmed_by > evidence.window:
        return None
    if evidence.replay is not None:
        if not is_better(evidence.replay):
            return None
        before = f", which is better on the same inputs: {replayed(evidence.replay)}"
    elif (known is None and evidence.not_asked) or (known is not None and known <= decay.window.mean):
        return None
    else:
        before = "" if known is None else f", which scored {100 * known:.1f} in the same evaluation"
        if evidence.not_asked:
            before += f" (it could not be asked the same inputs: {evidence.not_asked})"
    reason = (
        f"The first {evidence.alarmed_by} labels since its release show decay by more than the margin of "
        f"{points(decay.margin)}: the champion scores {score(decay.window)} on its newest labels and was promoted with "
        f"{score(decay.reference)}. Roll back to version {previous}{before}."
    )
    evidence_says = f"{evidence_of_fall(decay)}."
    rule = (
        f"Roll back if the alarm comes within the first {evidence.window} labels after a release and the previous "
        f"champion is better on the same inputs (one-sided p below {ALPHA:g}), or cannot be asked and scored higher in "
        f"the champion's evaluation."
    )
    return Verdict("roll back", (reason, evidence_says, *arrived_unasked(evidence.unasked, decay.window.rows)), rule)


def why_no_rollback(evidence: RollbackEvidence) -> str | None:
    """Why an early alarm does not roll back although there is a previous version; None if it came too late for that."""
    if evidence.previous is None or evidence.alarmed_by > evidence.window:
        return None
    if evidence.replay is not None:
        return (
            f"Version {evidence.previous} is not shown to be better on the same inputs, so the monitor does not roll back: "
            f"{replayed(evidence.replay)}; by hand: `perpetune rollback`."
        )
    if evidence.not_asked:
        return (
            f"Version {evidence.previous} could not be asked the same inputs, so the monitor does not roll back: "
            f"{evidence.not_asked}; by hand: `perpetune rollback`."
        )
    return None


def is_better(found: Replay) -> bool:
    """Whether the previous version is shown to be better."""
    return found.difference > 0 and found.p_value < ALPHA


def replayed(found: Replay) -> str:
    """As "91.0 against 60.0 of the champion on 200 rows, a difference of +31.0 points (95% interval ..., p 1e-9)"."""
    return (
        f"{100 * found.previous:.1f} against {100 * found.champion:.1f} of the champion on {found.rows:,} rows, a difference "
        f"of {100 * found.difference:+.1f} points ({interval(found.interval)}, one-sided p {found.p_value:.3g})"
    )


def manual_rollback(evidence: ManualRollback) -> Verdict:
    """The verdict of a manual rollback."""
    change = f"Rolled back from version {evidence.rolled_back} to version {evidence.restored}"
    return Verdict("roll back", (f"{change}: {evidence.reason}",), "Manual rollback.")


def manual_promotion(evidence: ManualPromotion) -> Verdict:
    """The verdict of a manual promotion."""
    change = f"Version {evidence.version} was promoted manually"
    instead = f" in place of version {evidence.previous}" if evidence.previous else ""
    before = f"; the verdict before was: {evidence.verdict}" if evidence.verdict else ""
    return Verdict("promote", (f"{change}{instead}: {evidence.reason}{before}",), "Manual promotion.")


def _error_measures(evidence: TrialEvidence) -> Mapping[str, Comparison]:
    return {"errors": evidence.errors, "slow answers": evidence.slow}


def _harm(evidence: TrialEvidence, rules: ReleaseParams, of_quality: ReleaseParams) -> list[str]:
    found = []
    if evidence.quality.interval.high < -of_quality.margin:
        found.append(
            f"The challenger is worse than the champion by more than the margin of {points(of_quality.margin)}: "
            f"quality is {_difference(evidence.quality)}."
        )
    for name, cost in _error_measures(evidence).items():
        if cost.interval.low > rules.margin:
            found.append(
                f"The challenger has more {name} than the champion by more than the margin of "
                f"{points(rules.margin)}: {_difference(cost)}."
            )
    return found


def _quality_kept(quality: Comparison, rules: ReleaseParams) -> str:
    at_last = _last(quality) if quality.interval.low <= -rules.margin else ""
    return (
        f"The challenger is not worse than the champion by the margin of {points(rules.margin)}: "
        f"quality is {_difference(quality)}{at_last}."
    )


def _not_more(name: str, cost: Comparison) -> str:
    return f"An increase of {name} is not shown: {_difference(cost)}."


def _not_yet(evidence: TrialEvidence, rules: ReleaseParams) -> str:
    quality = evidence.quality
    needed = (
        f"{rules.min_labels} labels are needed on each side"
        if quality.labels is None
        else f"{quality.asked} labels were asked for"
    )
    return (
        f"There is no verdict after {evidence.requests} of at most {rules.max_requests} requests: quality is "
        f"{_difference(quality)}; {needed}."
    )


def _awaiting(evidence: TrialEvidence, rules: ReleaseParams) -> str:
    return (
        f"After {evidence.requests} requests the trial waits for {evidence.awaited} labels (`perpetune labels`), each for at "
        f"most {rules.label_days:g} days: quality is {_difference(evidence.quality)}."
    )


def _unlabelled(evidence: TrialEvidence, rules: ReleaseParams) -> str:
    return (
        f"After {rules.max_requests} requests quality is not known, and release.accept_unproven is never: "
        f"{_label_counts(evidence.quality)}."
    )


def _not_shown(evidence: TrialEvidence, rules: ReleaseParams) -> str:
    return (
        f"After {rules.max_requests} requests it is not shown that the challenger is not worse than the champion by the "
        f"margin of {points(rules.margin)} (release.accept_unproven): quality is {_difference(evidence.quality)}"
        f"{_last(evidence.quality)}."
    )


def _unproven(name: str, cost: Comparison, rules: ReleaseParams) -> str:
    return (
        f"After {rules.max_requests} requests {name} are still not shown to be within the margin of "
        f"{points(rules.margin)}: {_difference(cost)}."
    )


def _within(name: str, cost: Comparison, rules: ReleaseParams) -> str:
    return f"The increase of {name} is within the margin of {points(rules.margin)}: {_difference(cost)}."


def _too_few_labels(evidence: TrialEvidence, rules: ReleaseParams) -> str:
    return (
        f"Promoted on errors and slow answers alone, after {evidence.requests} requests: {_label_counts(evidence.quality)}, "
        f"too few for a test of quality, so that the trial would not have found a loss; the promotion gate tested quality on "
        f"the holdouts."
    )


def _label_counts(quality: Comparison) -> str:
    if quality.labels is None:
        return f"{quality.rows} answers of the challenger and {quality.champion_rows} of the champion are labelled"
    return (
        f"{quality.labels} of {quality.differing or 0} requests that are answered differently are labelled, and "
        f"{quality.asked} labels were asked for"
    )


def _seems_worse(evidence: TrialEvidence, rules: ReleaseParams) -> str:
    return (
        f"After {evidence.requests} requests the observed quality is below the champion's by more than the margin of "
        f"{points(rules.margin)}, although the interval includes the margin: {_difference(evidence.quality)}."
    )


def _seems_as_good(evidence: TrialEvidence, rules: ReleaseParams) -> str:
    missed = points(2 * rules.margin)
    return (
        f"After {evidence.requests} requests the observed quality is within the margin of {points(rules.margin)}; the "
        f"promotion gate tested quality on the holdouts: {_difference(evidence.quality)}. With so few labels one that is "
        f"worse by {missed} comes this far with a chance of {missed_harm(evidence.quality, rules.margin):.0%}."
    )


def missed_harm(quality: Comparison, margin: float) -> float:
    """The chance that the estimate is within the margin although the challenger is worse by twice the margin.

    In the normal approximation, for two independent groups of users, or for labels of disagreements.
    """
    return 1 - NormalDist().cdf(margin / math.sqrt(_variance(quality)))


def _variance(quality: Comparison) -> float:
    """Of the estimated difference."""
    if quality.labels is not None:
        return max((quality.differing or 0) / max(quality.rows, 1), LEAST_VARIANCE) ** 2 / max(quality.labels, 1)
    return sum(
        max(mean * (1 - mean), LEAST_VARIANCE) / max(rows, 1)
        for mean, rows in ((quality.challenger, quality.rows), (quality.champion, quality.champion_rows))
    )


def _difference(compared: Comparison) -> str:
    if compared.differing is not None:
        return (
            f"{100 * compared.difference:+.1f} points ({interval(compared.interval)}; {compared.rows:,} requests, of which "
            f"{compared.differing:,} are answered differently and {compared.labels:,} of those labelled)"
        )
    return (
        f"{100 * compared.challenger:.1f} against {100 * compared.champion:.1f}, a difference of "
        f"{100 * compared.difference:+.1f} points ({interval(compared.interval)}; {compared.rows} and "
        f"{compared.champion_rows} rows)"
    )


def _last(compared: Comparison) -> str:
    return "" if compared.last is None else f"; at the last look {interval(compared.last)}"


def _trial_rule(rules: ReleaseParams, of_quality: ReleaseParams) -> str:
    by_cost = (
        f" The margin of quality is {points(of_quality.margin)}, what the champion's mistakes cost (promote.costs)."
        if of_quality.margin < rules.margin
        else ""
    )
    accepted = {
        "never": "else abort",
        "unlabelled": f"else abort, unless fewer than {rules.min_labels} labels came",
        "observed": f"else if the observed quality is, or fewer than {rules.min_labels} labels came",
    }[rules.accept_unproven]
    return (
        f"Abort if quality, errors or slow answers (more than {rules.slow_seconds:g} s) are shown to be worse by "
        f"more than {points(rules.margin)} at any check; promote if quality is shown to be within this margin and no "
        f"increase of errors or slow answers is shown; after {rules.max_requests} requests, when the labels asked for have "
        f"come, promote if errors and slow answers are within it, and quality by a last look, {accepted}. Over all checks, a "
        f"challenger whose quality is worse by the margin is shown to be within it with a chance of at most "
        f"{100 * rules.alpha:g}%, and an equal one is shown to be harmful with at most {100 * rules.alpha:g}%.{by_cost}"
    )
