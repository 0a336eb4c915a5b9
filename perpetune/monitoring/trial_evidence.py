"""The evidence of a trial: quality, errors and slow answers of challenger and champion, with anytime-valid intervals.

Observations are in the order in which they became known, which later ones do not change: requests by time, feedback by
its number in the log.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from perpetune.monitoring.window import Scorer
from perpetune.params import ReleaseParams
from perpetune.policy.rollout import MEASURES, Comparison, TrialEvidence
from perpetune.policy.verdict import Interval
from perpetune.prediction_log.trial_outcomes import Outcome
from perpetune.statistics.confidence_sequences import SequentialEstimate, mean_difference, paired_mean_difference


def canary_evidence(
    challenger: Iterable[Outcome], champion: Iterable[Outcome], rules: ReleaseParams, score: Scorer
) -> TrialEvidence:
    """The evidence of a canary: two groups of users, one answered by each version.

    Quality is agreement with labels or, without labels, the feedback score, which is 0 to 1.
    """
    ours, theirs = _by_time(challenger), _by_time(champion)
    labels = any(each.label is not None for each in (*ours, *theirs))

    def unpaired(one: Sequence[float], other: Sequence[float]) -> Comparison:
        return _compared(one, other, mean_difference(one, other, _alpha(rules)), rules)

    return TrialEvidence(
        strategy="canary",
        requests=len(ours),
        quality=unpaired(_qualities(ours, labels, score), _qualities(theirs, labels, score)),
        errors=unpaired(_errors(ours), _errors(theirs)),
        slow=unpaired(_slow(ours, rules), _slow(theirs, rules)),
    )


def shadow_evidence(pairs: Iterable[tuple[Outcome, Outcome]], rules: ReleaseParams, score: Scorer) -> TrialEvidence:
    """The evidence of a shadow: pairs (champion, challenger) of answers to the same requests.

    Quality needs labels, because feedback scores are on the champion's answers only.
    """
    ordered = sorted(pairs, key=lambda pair: (pair[0].time, pair[0].id))
    theirs, ours = [pair[0] for pair in ordered], [pair[1] for pair in ordered]
    both = [(one, other) for other, one in ordered if one.output is not None and other.output is not None]
    labelled = sorted(
        (pair for pair in both if pair[0].label is not None), key=lambda pair: pair[0].first_feedback or 0
    )

    def paired(one: Sequence[float], other: Sequence[float]) -> Comparison:
        return _compared(one, other, paired_mean_difference(one, other, _alpha(rules)), rules)

    return TrialEvidence(
        strategy="shadow",
        requests=len(ordered),
        quality=paired(
            _qualities([one for one, _ in labelled], True, score),
            _qualities([other for _, other in labelled], True, score),
        ),
        errors=paired(_errors(ours), _errors(theirs)),
        slow=paired(_slow([one for one, _ in both], rules), _slow([other for _, other in both], rules)),
    )


def _alpha(rules: ReleaseParams) -> float:
    return rules.alpha / MEASURES


def _by_time(outcomes: Iterable[Outcome]) -> list[Outcome]:
    return sorted(outcomes, key=lambda each: (each.time, each.id))


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
        return [score(each.label, str(each.output)) for each in known if each.label is not None]
    return [each.score for each in known if each.score is not None]


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
