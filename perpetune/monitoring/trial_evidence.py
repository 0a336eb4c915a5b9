"""The evidence of a trial: quality, errors and slow answers of challenger and champion, with anytime-valid intervals.

Observations are in the order in which they became known, which later ones do not change: requests by time, feedback by
its number in the log. Quality is compared on the same requests if both versions have answered them, and then by labels of
disagreements; otherwise between two groups of users. One request a day counts of each user or session, and of equal inputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from statistics import NormalDist
from typing import TypeVar

import numpy as np

from perpetune.monitoring.trial_lot import is_drawn
from perpetune.monitoring.window import Scorer
from perpetune.params import ReleaseParams
from perpetune.policy.rollout import MEASURES, Comparison, TrialEvidence, last_alpha
from perpetune.policy.verdict import Interval
from perpetune.prediction_log.answers.trial_outcomes import Outcome
from perpetune.prediction_log.labels.delays import settled_prefix
from perpetune.statistics.disagreements import Disagreements, compare_disagreements
from perpetune.statistics.mean_difference import Sample, difference_bounds
from perpetune.statistics.sequential.anytime_disagreements import anytime_bounds
from perpetune.statistics.sequential.confidence_sequences import (
    SequentialEstimate,
    mean_difference,
    paired_mean_difference,
)

Pair = tuple[Outcome, Outcome]
"""What champion and challenger answered to the same request."""
Row = TypeVar("Row")


@dataclass(frozen=True)
class LabelState:
    """What is known of labels at a check: `now`, and the `propensity` of the lot of the trial of `version`.

    Labels that came unasked count if `unasked`, those of a client's own lot if `client_lot` (it draws all alike); both,
    and those of the standing lot, of requests up to `settled` (None: of all, as they come): nearly all of theirs have come.
    """

    version: str
    now: datetime
    propensity: float = 0.0
    unasked: bool = True
    client_lot: bool = True
    settled: datetime | None = None

    def drawn(self, request: Outcome) -> bool:
        """Whether the trial's lot has drawn the request, and its label was asked for."""
        return request.asked is not None and is_drawn(self.version, request.id, self.propensity)

    def counts_undrawn(self, request: Outcome) -> bool:
        """Whether a label counts that the trial's lot has not drawn."""
        return self.judges(request) and self.is_settled(request)

    def judges(self, request: Outcome) -> bool:
        """Whether the label was not chosen for what the answer is."""
        if request.propensity is not None:
            return self.client_lot
        return request.why == "lot" or (request.why is None and self.unasked)

    def is_settled(self, request: Outcome) -> bool:
        return self.settled is None or request.time <= self.settled


@dataclass(frozen=True)
class LabelledPairs:
    """Disagreements of a trial: those whose labels count now, and how many labels were asked for and may still come."""

    labelled: Sequence[Pair]
    asked: int
    awaited: int


def canary_evidence(
    challenger: Iterable[Outcome],
    champion: Iterable[Outcome],
    rules: ReleaseParams,
    score: Scorer,
    state: LabelState | None = None,
) -> TrialEvidence:
    """The evidence of a canary: two groups of users, one answered by each version.

    Quality is agreement with labels or, without labels, the feedback score, which is 0 to 1.
    """
    ours, theirs = _by_time(challenger), _by_time(champion)

    def unpaired(one: Sequence[float], other: Sequence[float]) -> Comparison:
        return _compared(one, other, mean_difference(one, other, _alpha(rules)), rules)

    return TrialEvidence(
        strategy="canary",
        requests=len(ours),
        quality=_quality_between(ours, theirs, rules, score, state),
        errors=unpaired(_errors(ours), _errors(theirs)),
        slow=unpaired(_slow(ours, rules), _slow(theirs, rules)),
        awaited=_awaited_between(ours, theirs, rules, state),
    )


def shadow_evidence(
    pairs: Iterable[Pair],
    rules: ReleaseParams,
    score: Scorer,
    state: LabelState | None = None,
    apart: Scorer | None = None,
) -> TrialEvidence:
    """The evidence of a shadow: pairs (champion, challenger) of answers to the same requests.

    Quality needs labels, because feedback scores are on the champion's answers only.
    """
    ordered = _pairs_by_time(pairs)
    theirs, ours = [pair[0] for pair in ordered], [pair[1] for pair in ordered]
    both = _both_answered(ordered)

    def paired(one: Sequence[float], other: Sequence[float]) -> Comparison:
        return _compared(one, other, paired_mean_difference(one, other, _alpha(rules)), rules)

    return with_pairs(
        TrialEvidence(
            strategy="shadow",
            requests=len(ordered),
            quality=_nothing_known(rules),
            errors=paired(_errors(ours), _errors(theirs)),
            slow=paired(_slow([one for _, one in both], rules), _slow([other for other, _ in both], rules)),
        ),
        ordered,
        rules,
        score,
        state,
        apart,
    )


def with_pairs(
    evidence: TrialEvidence,
    pairs: Iterable[Pair],
    rules: ReleaseParams,
    score: Scorer,
    state: LabelState | None = None,
    apart: Scorer | None = None,
) -> TrialEvidence:
    """The evidence with quality by labels of disagreements on the same requests, the first `release.max_requests`.

    `apart` is the score by which answers differ, if it is another: two mistakes for one another may cost nothing, and one
    of them much if a third answer is right.
    """
    compared = comparable(pairs, rules)
    differing = disagreements(compared, apart or score)
    known = labels_that_count(differing, rules, state)
    found = Disagreements(
        len(compared),
        len(differing),
        tuple(sorted(_difference(pair, score) for pair in known.labelled)),
    )
    at_end = evidence.requests >= rules.max_requests and not known.awaited
    theirs, ours = (_scores([pair[side] for pair in known.labelled], score) for side in (0, 1))
    quality = quality_of_disagreements(found, known.asked, rules, at_end=at_end, scores=(_mean(ours), _mean(theirs)))
    return replace(evidence, quality=quality, awaited=known.awaited)


def comparable(pairs: Iterable[Pair], rules: ReleaseParams) -> list[Pair]:
    """The pairs that compare quality: both have answered, one of each user or input and day."""
    first = _both_answered(_pairs_by_time(pairs)[: rules.max_requests])
    return _first_of_each(first, lambda pair: pair[0])


def disagreements(pairs: Iterable[Pair], score: Scorer) -> list[Pair]:
    """Those whose answers may be scored differently: neither is fully right if the other is the correct one."""
    return [pair for pair in pairs if _differ(str(pair[0].output), str(pair[1].output), score)]


def labels_that_count(
    differing: Sequence[Pair], rules: ReleaseParams, state: LabelState | None = None
) -> LabelledPairs:
    """The disagreements whose labels count: those of the lot in the order in which they were asked, and unasked ones.

    Without a state all labels count as they are.
    """
    if state is None:
        return LabelledPairs([pair for pair in differing if pair[0].label is not None], 0, 0)
    lot = sorted((pair for pair in differing if state.drawn(pair[0])), key=lambda pair: (pair[0].asked, pair[0].id))
    patience = timedelta(days=rules.label_days)
    times = [(pair[0].asked or state.now, _labelled_at(pair[0])) for pair in lot]
    known = lot[: settled_prefix(times, state.now, patience)]
    drawn = {pair[0].id for pair in lot}
    others = [pair for pair in differing if pair[0].id not in drawn and state.counts_undrawn(pair[0])]
    labelled = [pair for pair in (*known, *others) if pair[0].label is not None]
    awaited = sum(state.now - when < patience for when, label in times[len(known) :] if label is None)
    return LabelledPairs(labelled, len(lot), awaited)


def _labelled_at(request: Outcome) -> datetime | None:
    return request.labelled if request.label is not None else None


def quality_of_disagreements(
    found: Disagreements, asked: int, rules: ReleaseParams, *, at_end: bool, scores: tuple[float, float] = (0.0, 0.0)
) -> Comparison:
    """The comparison on the same requests. `scores`: of challenger and champion on the labelled disagreements."""
    if not found.rows:
        return _nothing_known(rules)
    low, high = anytime_bounds(found, _alpha(rules))
    difference = found.ratio * _mean(found.differences)
    return Comparison(
        challenger=scores[0],
        champion=scores[1],
        difference=difference,
        interval=Interval(min(low, difference), max(high, difference), 1 - _alpha(rules)),
        rows=found.rows,
        champion_rows=found.rows,
        differing=found.differing,
        labels=len(found.differences),
        asked=asked,
        last=_last_look_of_pairs(found, rules) if at_end else None,
    )


def quality_of_groups(
    ours: Sequence[float], theirs: Sequence[float], rules: ReleaseParams, *, at_end: bool
) -> Comparison:
    """The comparison of the scores of two groups of users, challenger's and champion's."""
    found = _compared(ours, theirs, mean_difference(ours, theirs, _alpha(rules)), rules)
    return replace(found, last=_last_look_between(ours, theirs, rules)) if at_end and ours and theirs else found


def _last_look_of_pairs(found: Disagreements, rules: ReleaseParams) -> Interval:
    """Both ends one-sided at the level that is left for the last look."""
    level = 1 - 2 * last_alpha(rules)
    compared = compare_disagreements(found, level)
    return Interval(compared.low, compared.high, level)


def _quality_between(
    ours: Sequence[Outcome], theirs: Sequence[Outcome], rules: ReleaseParams, score: Scorer, state: LabelState | None
) -> Comparison:
    ours, theirs = (_with_known(some, state) for some in (ours, theirs))
    labels = any(each.label is not None for each in (*ours, *theirs))
    one, other = (_qualities(some, labels, score) for some in (ours, theirs))
    at_end = len(ours) >= rules.max_requests and not _awaited_between(ours, theirs, rules, state)
    return quality_of_groups(one, other, rules, at_end=at_end)


def _last_look_between(one: Sequence[float], other: Sequence[float], rules: ReleaseParams) -> Interval:
    """Welch's interval of the difference, with a right and a wrong answer added to either side (Agresti & Caffo 2000).

    Of graded scores, which may be skewed, an interval that holds for any (`difference_bounds`).
    """
    level = 1 - 2 * last_alpha(rules)
    if not {*one, *other} <= {0.0, 1.0}:
        low, high = difference_bounds(Sample(np.array(one)), Sample(np.array(other)), last_alpha(rules))
        return Interval(low, high, level)
    sides = [np.array([*some, 0.0, 1.0]) for some in (one, other)]
    difference = float(sides[0].mean() - sides[1].mean())
    half = NormalDist().inv_cdf((1 + level) / 2) * math.sqrt(sum(float(side.var(ddof=1)) / len(side) for side in sides))
    return Interval(difference - half, difference + half, level)


def _awaited_between(
    ours: Sequence[Outcome], theirs: Sequence[Outcome], rules: ReleaseParams, state: LabelState | None
) -> int:
    """Requests whose labels may still come, if any have come at all."""
    first = [*ours[: rules.max_requests], *theirs]
    if state is None or all(each.first_feedback is None for each in first):
        return 0
    return sum(not state.is_settled(each) for each in ours[: rules.max_requests])


def _with_known(outcomes: Sequence[Outcome], state: LabelState | None) -> list[Outcome]:
    """One outcome of each user or input and day that has feedback which counts; the others without theirs."""
    if state is None:
        return list(outcomes)
    known = [each for each in outcomes if each.first_feedback is not None and state.counts_undrawn(each)]
    counting = {each.id for each in _first_of_each(known, lambda each: each)}
    return [each if each.id in counting else each.without_feedback() for each in outcomes]


def _first_of_each(rows: Iterable[Row], request: Callable[[Row], Outcome]) -> list[Row]:
    """The first row of each user or session, or of equal inputs, and day."""
    first: dict[tuple[str, date], Row] = {}
    for row in rows:
        first.setdefault((request(row).cluster, request(row).time.date()), row)
    return list(first.values())


def _nothing_known(rules: ReleaseParams) -> Comparison:
    return Comparison(0.0, 0.0, 0.0, Interval(-1.0, 1.0, 1 - _alpha(rules)), 0, 0)


def _difference(pair: Pair, score: Scorer) -> float:
    theirs, ours = (score(str(each.label), str(each.output)) for each in pair)
    return ours - theirs


def _differ(one: str, other: str, score: Scorer) -> bool:
    return one != other and (score(one, other) < 1 or score(other, one) < 1)


def _alpha(rules: ReleaseParams) -> float:
    return rules.alpha / MEASURES


def _by_time(outcomes: Iterable[Outcome]) -> list[Outcome]:
    return sorted(outcomes, key=lambda each: (each.time, each.id))


def _pairs_by_time(pairs: Iterable[Pair]) -> list[Pair]:
    return sorted(pairs, key=lambda pair: (pair[0].time, pair[0].id))


def _both_answered(pairs: Iterable[Pair]) -> list[Pair]:
    return [pair for pair in pairs if pair[0].output is not None and pair[1].output is not None]


def _errors(outcomes: Sequence[Outcome]) -> list[float]:
    return [float(each.output is None) for each in outcomes]


def _slow(outcomes: Sequence[Outcome], rules: ReleaseParams) -> list[float]:
    """1.0 for each slow answer; failed requests are left out, because they count as errors."""
    limit = 1000 * rules.slow_seconds
    return [float(each.latency_ms > limit) for each in outcomes if each.output is not None]


def _qualities(outcomes: Sequence[Outcome], labels: bool, score: Scorer) -> list[float]:
    known = sorted(
        (each for each in outcomes if each.output is not None and each.first_feedback is not None),
        key=lambda each: each.first_feedback or 0,
    )
    if labels:
        return _scores(known, score)
    return [each.score for each in known if each.score is not None]


def _scores(outcomes: Sequence[Outcome], score: Scorer) -> list[float]:
    return [score(each.label, str(each.output)) for each in outcomes if each.label is not None]


def _compared(
    ours: Sequence[float], theirs: Sequence[float], found: SequentialEstimate, rules: ReleaseParams
) -> Comparison:
    return Comparison(
        challenger=_mean(ours),
        champion=_mean(theirs),
        difference=_mean(ours) - _mean(theirs) if ours and theirs else 0.0,
        interval=Interval(found.low, found.high, 1 - _alpha(rules)),
        rows=len(ours),
        champion_rows=len(theirs),
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
