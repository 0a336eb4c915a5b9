"""What a replay found out of each policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from perpetune.params import EvaluateParams
from perpetune.replay.histories.history import History
from perpetune.replay.policies.policy import Refresh
from perpetune.replay.simulate import PolicyRun
from perpetune.statistics.estimate import Estimate, estimate_mean

PIECES = 24  # of the history, at most, in which the score is shown over time


@dataclass(frozen=True)
class Piece:
    """The score of the requests from `start` to `end`."""

    start: datetime
    end: datetime
    score: Estimate


@dataclass(frozen=True)
class Detection:
    """How soon after a change the first refresh began, and the first one that brought a new champion.

    All are None where it never came before the next change. `labels` counts those of requests from the change on
    that were known when the refresh began; `requests` those asked.
    """

    change: datetime
    refresh: datetime | None
    labels: int | None
    requests: int | None
    days: float | None
    promoted_days: float | None


@dataclass(frozen=True)
class Outcome:
    """One policy: `dollars` and `minutes` are those of training; `before` counts refreshes before the first change."""

    policy: str
    score: Estimate
    refreshes: tuple[Refresh, ...]
    promotions: int
    minutes: float
    dollars: float
    before: int
    detections: tuple[Detection, ...]
    pieces: tuple[Piece, ...]


def outcome(run: PolicyRun, history: History, params: EvaluateParams, min_rows: int) -> Outcome:
    """Count and estimate; a piece of the history holds at least `min_rows` requests."""
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
        pieces=_pieces([scored.score for scored in run.answers], history, params, min_rows),
    )


def as_it_was(history: History, scores: Sequence[float | None], params: EvaluateParams, min_rows: int) -> Outcome:
    """The recorded answers as if they were a policy's; of their refreshes nothing is known."""
    found = [score for score in scores if score is not None]
    return Outcome(
        "as recorded", _estimate(found, params), (), 0, 0.0, 0.0, 0, (), _pieces(scores, history, params, min_rows)
    )


def _detection(change: datetime, after: datetime | None, refreshes: Sequence[Refresh], history: History) -> Detection:
    mine = [refresh for refresh in refreshes if refresh.time >= change and (after is None or refresh.time < after)]
    if not mine:
        return Detection(change, None, None, None, None, None)
    first = mine[0].time
    since = [request for request in history.requests if change <= request.asked <= first]
    promoted = next((refresh.time for refresh in mine if refresh.promoted), None)
    return Detection(
        change=change,
        refresh=first,
        labels=sum(request.known <= first for request in since),
        requests=len(since),
        days=(first - change) / timedelta(days=1),
        promoted_days=(promoted - change) / timedelta(days=1) if promoted else None,
    )


def _pieces(
    scores: Sequence[float | None], history: History, params: EvaluateParams, min_rows: int
) -> tuple[Piece, ...]:
    requests = history.requests
    size = max(min_rows, -(-len(requests) // PIECES))
    found: list[Piece] = []
    for start in range(0, len(requests), size):
        known = [score for score in scores[start : start + size] if score is not None]
        if known and (len(known) >= min_rows / 2 or not found):
            end = min(start + size, len(requests)) - 1
            found.append(Piece(requests[start].asked, requests[end].asked, _estimate(known, params)))
    return tuple(found)


def _estimate(scores: Sequence[float], params: EvaluateParams) -> Estimate:
    return estimate_mean(scores, confidence=params.confidence, samples=params.bootstrap_samples, seed=params.seed)
