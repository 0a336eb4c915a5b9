"""One policy lives through a history."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from perpetune.curation.steps.split import Splits, split
from perpetune.errors import PerpetuneError
from perpetune.params import Params
from perpetune.policy.unchanged import LastRefresh, NewData, nothing_new
from perpetune.replay.histories.history import History
from perpetune.replay.models.learner import Model
from perpetune.replay.models.model_cache import ModelCache, ScoredAnswer
from perpetune.replay.policies.gate import judge
from perpetune.replay.policies.policy import Champion, Observation, Policy, Refresh, RetrainCall, unsuccessful


@dataclass(frozen=True)
class PolicyRun:
    """What became of a policy: an answer to each request, in order, and its refreshes."""

    policy: str
    answers: tuple[ScoredAnswer, ...]
    refreshes: tuple[Refresh, ...]


@dataclass
class _Simulation:
    champion: Champion
    last: LastRefresh  # or what the first model was made of
    answers: list[ScoredAnswer] = field(default_factory=list)
    mine: list[ScoredAnswer] = field(default_factory=list)  # of the present champion
    began: int = 0  # the first request that the present champion answered
    told: int = 0  # labels that have become known
    next: Champion | None = None  # released as soon as it is trained
    refreshes: list[Refresh] = field(default_factory=list)


def simulate(
    history: History, policy: Policy, cache: ModelCache, params: Params, tell: Callable[[int], None] = lambda _: None
) -> PolicyRun:
    """Answer every request with the champion of its moment, retraining when the policy says so.

    The first champion learns from `history.taught`. At a refresh the data are split as curation splits them: what was
    taught, and as traffic each request whose label is known by then. A policy with a gate does not run a refresh that has
    too little new. A challenger takes over once its training is
    over. `tell` hears how many requests have been answered. Raises PerpetuneError where too little is taught.
    """
    requests = history.requests
    by_label = sorted(range(len(requests)), key=lambda position: (requests[position].known, position))
    life = _Simulation(*_first(history, cache, params))
    for now in policy.checks(history.begins, history.ends):
        _answer(life, history, cache, now, tell)
        judged = _judged(life, history, by_label, now)
        since = life.told - life.last.labels
        call = policy.check(Observation(now, life.champion, life.mine, judged, tuple(life.refreshes), since))
        if call is not None and life.next is None:
            _refresh(life, history, by_label, policy, cache, params, now, call)
    _answer(life, history, cache, None, tell)
    return PolicyRun(policy.name, tuple(life.answers), tuple(life.refreshes))


def _first(history: History, cache: ModelCache, params: Params) -> tuple[Champion, LastRefresh]:
    parts = split(history.taught, params.split)
    if len(parts.train) < params.split.min_train_rows or not parts.frozen:
        raise PerpetuneError(
            f"the first model is taught {len(history.taught)} rows, of which {len(parts.train)} are to train on and "
            f"{len(parts.frozen)} to judge by: too few",
            where=history.name,
            do="teach it more: a larger --start, or --examples",
        )
    learned = cache.train(parts.train, parts.validation)
    return _champion(learned.model, history.begins, parts, cache), _as_last(parts, 0, history.begins, "promote")


def _as_last(parts: Splits, labels: int, ended: datetime, outcome: str) -> LastRefresh:
    """What the next refresh must differ from: in a replay neither settings nor programs change."""
    now = _data(parts, labels)
    return LastRefresh(ended, outcome, now.version, now.rows, labels, same_settings=True, stands=True)


def _data(parts: Splits, labels: int) -> NewData:
    ids = [[row.id for row in rows] for rows in parts.parts().values()]
    return NewData(hashlib.sha256(str(ids).encode()).hexdigest(), sum(map(len, ids)), labels)


def _champion(model: Model, since: datetime, parts: Splits, cache: ModelCache) -> Champion:
    return Champion(
        model, since, tuple(cache.score_answers(model, parts.frozen)), tuple(cache.score_answers(model, parts.recent))
    )


def _answer(
    life: _Simulation, history: History, cache: ModelCache, until: datetime | None, tell: Callable[[int], None]
) -> None:
    """All requests asked before `until`; None: all that are left."""
    requests = history.requests
    while True:
        position = len(life.answers)
        if life.next is not None and (position == len(requests) or requests[position].asked >= life.next.since):
            life.champion, life.next = life.next, None
            life.mine, life.began = [], position
        end = position
        while end < len(requests) and (until is None or requests[end].asked < until):
            if life.next is not None and requests[end].asked >= life.next.since:
                break
            end += 1
        if end == position:
            return
        ahead = [request.example for request in requests[end : end + cache.learner.at_once]]
        marks = cache.score_answers(life.champion.model, [request.example for request in requests[position:end]], ahead)
        life.answers += marks
        life.mine += marks
        tell(len(marks))


def _judged(life: _Simulation, history: History, by_label: list[int], now: datetime) -> list[float]:
    """The scores of the present champion's answers whose labels became known since the last look."""
    first = life.told
    while life.told < len(by_label) and history.requests[by_label[life.told]].known <= now:
        life.told += 1
    fresh = by_label[first : life.told]
    return [life.answers[position].score for position in fresh if life.began <= position < len(life.answers)]


def _refresh(
    life: _Simulation,
    history: History,
    by_label: list[int],
    policy: Policy,
    cache: ModelCache,
    params: Params,
    now: datetime,
    call: RetrainCall,
) -> None:
    known = [history.requests[position].example for position in by_label[: life.told]]
    traffic = [example.model_copy(update={"source": "traffic"}) for example in known]
    parts = split([*history.taught, *traffic], params.split)
    failures = unsuccessful(life.refreshes)
    if policy.gated and nothing_new(life.last, _data(parts, life.told), call.trigger, failures, params.refresh):
        return
    learned = cache.train(parts.train, parts.validation)
    ready = now + timedelta(seconds=learned.seconds)
    challenger = _champion(learned.model, ready, parts, cache)
    outcome, reason = "released", "This policy releases whatever it has trained."
    if policy.gated:
        marks = [cache.score_answers(life.champion.model, rows) for rows in (parts.frozen, parts.recent)]
        ratios = {"frozen": params.split.frozen_traffic, "recent": params.split.recent}
        verdict = judge(
            (marks[0], marks[1]), (challenger.frozen, challenger.recent), params.promote, params.evaluate, ratios
        )
        outcome, reason = verdict.outcome, verdict.reasons[0]
    done = Refresh(now, call.why, outcome, reason, len(parts.train), learned.seconds, call.trigger)
    life.refreshes.append(done)
    life.last = _as_last(parts, life.told, ready, outcome)
    if done.promoted:
        life.next = challenger
