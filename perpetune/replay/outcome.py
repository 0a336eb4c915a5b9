"""The results of a replay for each policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from perpetune.params import EvaluateParams
from perpetune.replay.histories.history import History
from perpetune.replay.policies.policy import Refresh
from perpetune.replay.simulate import PolicyRun
from perpetune.statistics.estimate import Estimate, estimate_mean
from perpetune.statistics.paired import compare

MAX_SEGMENTS = 24  # of the history, for the score over time


@dataclass(frozen=True)
class Segment:
    """The mean score of the requests from `start` to `end`."""

    start: datetime
    end: datetime
    score: Estimate


@dataclass(frozen=True)
class Detection:
    """The delay from a change to the first refresh, and to the first promoted one.

    All are None if there was none before the next change. `requests` counts the requests from the change to the refresh,
    `labels` those of them whose label was known by then.
    """

    change: datetime
    refresh: datetime | None
    labels: int | None
    requests: int | None
    days: float | None
    promoted_days: float | None


@dataclass(frozen=True)
class Lead:
    """How far perpetune's policy is ahead, on the same requests, with an interval: a difference of mean scores."""

    difference: float
    low: float
    high: float


@dataclass(frozen=True)
class Outcome:
    """The result of one policy: `minutes` and `dollars` of training; `before`: refreshes before the first change.

    `perpetune_lead` is perpetune's score less this policy's; None for perpetune itself, and if it was not replayed.
    """

    policy: str
    score: Estimate
    refreshes: tuple[Refresh, ...]
    promotions: int
    minutes: float
    dollars: float
    before: int
    detections: tuple[Detection, ...]
    segments: tuple[Segment, ...]
    perpetune_lead: Lead | None = None


def lead_of(ours: PolicyRun, other: PolicyRun, params: EvaluateParams) -> Lead:
    """The paired comparison of two policies over the same requests; those of one group are one observation."""
    theirs_scores, our_scores = ([scored.score for scored in run.answers] for run in (other, ours))
    found = compare(
        theirs_scores,
        our_scores,
        confidence=params.confidence,
        samples=params.bootstrap_samples,
        seed=params.seed,
        groups=[scored.example.group for scored in ours.answers],
    )
    return Lead(found.difference, found.low, found.high)


def outcome(run: PolicyRun, history: History, params: EvaluateParams, min_rows: int) -> Outcome:
    """The result of a policy's run; a segment has at least `min_rows` requests."""
    seconds = sum(refresh.seconds for refresh in run.refreshes)
    changes = history.changes
    return Outcome(
        policy=run.policy,
        score=_estimate([scored.score for scored in run.answers], params),
        refreshes=run.refreshes,
        promotions=sum(refresh.promoted for refresh in run.refreshes),
        minutes=seconds / 60,
        dollars=seconds / 3600 * params.dollars_per_hour,
        before=sum(not changes or refresh.time < changes[0] for refresh in run.refreshes),
        detections=tuple(
            _detection(change, after, run.refreshes, history)
            for change, after in zip(changes, (*changes[1:], None), strict=False)
        ),
        segments=_pieces([scored.score for scored in run.answers], history, params, min_rows),
    )


def recorded_outcome(
    history: History, scores: Sequence[float | None], params: EvaluateParams, min_rows: int
) -> Outcome:
    """The result of the recorded answers, whose refreshes are not known."""
    found = [score for score in scores if score is not None]
    return Outcome(
        "as recorded", _estimate(found, params), (), 0, 0.0, 0.0, 0, (), _pieces(scores, history, params, min_rows)
    )


def _detection(change: datetime, after: datetime | None, refreshes: Sequence[Refresh], history: History) -> Detection:
    between = [refresh for refresh in refreshes if refresh.time >= change and (after is None or refresh.time < after)]
    if not between:
        return Detection(change, None, None, None, None, None)
    first = between[0].time
    since = [request for request in history.requests if change <= request.time <= first]
    promoted = next((refresh.time for refresh in between if refresh.promoted), None)
    return Detection(
        change=change,
        refresh=first,
        labels=sum(request.label_time <= first for request in since),
        requests=len(since),
        days=(first - change) / timedelta(days=1),
        promoted_days=(promoted - change) / timedelta(days=1) if promoted else None,
    )


def _pieces(
    scores: Sequence[float | None], history: History, params: EvaluateParams, min_rows: int
) -> tuple[Segment, ...]:
    requests = history.requests
    size = max(min_rows, -(-len(requests) // MAX_SEGMENTS))
    found: list[Segment] = []
    for start in range(0, len(requests), size):
        known = [score for score in scores[start : start + size] if score is not None]
        if known and (len(known) >= min_rows / 2 or not found):
            end = min(start + size, len(requests)) - 1
            found.append(Segment(requests[start].time, requests[end].time, _estimate(known, params)))
    return tuple(found)


def _estimate(scores: Sequence[float], params: EvaluateParams) -> Estimate:
    return estimate_mean(scores, confidence=params.confidence, samples=params.bootstrap_samples, seed=params.seed)
