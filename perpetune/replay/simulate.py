"""Simulate one policy on a history."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from perpetune.curation.splitting.splits import Splits
from perpetune.curation.steps.split import split
from perpetune.errors import PerpetuneError
from perpetune.loop.assess.holdout_uses import Uses, used_again, uses_of
from perpetune.params import Params
from perpetune.policy.unchanged import LastRefresh, NewData, nothing_new
from perpetune.replay.histories.history import History
from perpetune.replay.models.learner import Model
from perpetune.replay.models.model_cache import ModelCache, ScoredAnswer
from perpetune.replay.policies.gate import GateContext, promotion_verdict
from perpetune.replay.policies.policy import Champion, Observation, Policy, Refresh, RetrainCall, unsuccessful


@dataclass(frozen=True)
class PolicyRun:
    """A policy's run: an answer to each request, in order, and its refreshes."""

    policy: str
    answers: tuple[ScoredAnswer, ...]
    refreshes: tuple[Refresh, ...]


@dataclass
class _Simulation:
    champion: Champion
    last: LastRefresh  # or the data of the first model
    answers: list[ScoredAnswer] = field(default_factory=list)
    champion_answers: list[ScoredAnswer] = field(default_factory=list)  # of the current champion
    first_request: int = 0  # the first one that the current champion answered
    known_labels: int = 0  # number of known labels
    pending: Champion | None = None  # serves when its training ends
    refreshes: list[Refresh] = field(default_factory=list)
    served: list[Model] = field(default_factory=list)  # all champions, the current one last
    uses: Uses = field(default_factory=dict)  # verdicts that held-out rows have decided


def simulate(
    history: History, policy: Policy, cache: ModelCache, params: Params, step: Callable[[int], None] = lambda _: None
) -> PolicyRun:
    """Answer every request with the champion of its time, and retrain if the policy calls for it.

    The first champion is trained on `history.initial`. A refresh splits the initial examples and all requests with known
    labels as curation does. A gated policy skips a refresh without enough new data. A challenger serves when its training
    ends; after the last request there is nothing left to train for. `step` gets the number of requests answered. Raises PerpetuneError if there are too few initial examples.
    """
    requests = history.requests
    by_label = sorted(range(len(requests)), key=lambda position: (requests[position].label_time, position))
    state = _Simulation(*_first(history, cache, params))
    state.served.append(state.champion.model)
    for now in policy.checks(history.begins, requests[-1].time):
        _answer(state, history, cache, now, step)
        new_scores = _new_scores(state, history, by_label, now)
        since = state.known_labels - state.last.labels
        call = policy.check(
            Observation(now, state.champion, state.champion_answers, new_scores, tuple(state.refreshes), since)
        )
        if call is not None and state.pending is None:
            _refresh(state, history, by_label, policy, cache, params, now, call)
    _answer(state, history, cache, None, step)
    return PolicyRun(policy.name, tuple(state.answers), tuple(state.refreshes))


def _first(history: History, cache: ModelCache, params: Params) -> tuple[Champion, LastRefresh]:
    parts = split(history.initial, params.split)
    if len(parts.train) < params.split.min_train_rows or not parts.frozen:
        raise PerpetuneError(
            f"{len(history.initial)} examples for the first model are too few: {len(parts.train)} are in the training split "
            f"and {len(parts.frozen)} in the frozen holdout",
            where=history.name,
            do="use a larger --start, or more --examples",
        )
    learned = cache.train(parts.train, parts.validation)
    return _champion(learned.model, history.begins, parts, cache), _last_refresh(parts, 0, history.begins, "promote")


def _last_refresh(parts: Splits, labels: int, ended: datetime, outcome: str) -> LastRefresh:
    """The last refresh for `nothing_new`; in a replay settings and versions do not change."""
    now = _data(parts, labels)
    return LastRefresh(ended, outcome, now.version, now.rows, labels, same_settings=True, still_valid=True)


def _data(parts: Splits, labels: int) -> NewData:
    ids = [[row.id for row in rows] for rows in parts.parts().values()]
    # Label requests are not replayed, so that no disagreements are asked for.
    return NewData(hashlib.sha256(str(ids).encode()).hexdigest(), sum(map(len, ids)), labels, len(parts.recent))


def _champion(model: Model, since: datetime, parts: Splits, cache: ModelCache) -> Champion:
    return Champion(
        model, since, tuple(cache.score_answers(model, parts.frozen)), tuple(cache.score_answers(model, parts.recent))
    )


def _answer(
    state: _Simulation, history: History, cache: ModelCache, until: datetime | None, step: Callable[[int], None]
) -> None:
    """Answer all requests before `until`; None for all that are left."""
    requests = history.requests
    while True:
        position = len(state.answers)
        if state.pending is not None and (position == len(requests) or requests[position].time >= state.pending.since):
            state.champion, state.pending = state.pending, None
            state.champion_answers, state.first_request = [], position
        end = position
        while end < len(requests) and (until is None or requests[end].time < until):
            if state.pending is not None and requests[end].time >= state.pending.since:
                break
            end += 1
        if end == position:
            return
        ahead = [request.example for request in requests[end : end + cache.learner.batch_size]]
        scored = cache.score_answers(
            state.champion.model, [request.example for request in requests[position:end]], ahead
        )
        state.answers += scored
        state.champion_answers += scored
        step(len(scored))


def _new_scores(state: _Simulation, history: History, by_label: list[int], now: datetime) -> list[float]:
    """Scores of the current champion's answers whose labels became known since the last check."""
    first = state.known_labels
    while state.known_labels < len(by_label) and history.requests[by_label[state.known_labels]].label_time <= now:
        state.known_labels += 1
    fresh = by_label[first : state.known_labels]
    return [state.answers[position].score for position in fresh if state.first_request <= position < len(state.answers)]


def _refresh(
    state: _Simulation,
    history: History,
    by_label: list[int],
    policy: Policy,
    cache: ModelCache,
    params: Params,
    now: datetime,
    call: RetrainCall,
) -> None:
    known = [history.requests[position].example for position in by_label[: state.known_labels]]
    traffic = [example.model_copy(update={"source": "traffic"}) for example in known]
    parts = split([*history.initial, *traffic], params.split)
    failures = unsuccessful(state.refreshes)
    if policy.gated and nothing_new(
        state.last, _data(parts, state.known_labels), call.trigger, failures, params.refresh, params.promote
    ):
        return
    learned = cache.train(parts.train, parts.validation)
    ready = now + timedelta(seconds=learned.seconds)
    challenger = _champion(learned.model, ready, parts, cache)
    outcome, reason = "released", "This policy releases every trained model."
    if policy.gated:
        held_out = {"frozen": parts.frozen, "recent": parts.recent}
        scored = [cache.score_answers(state.champion.model, rows) for rows in held_out.values()]
        context = GateContext(
            ratios={"frozen": params.split.frozen_traffic, "recent": params.split.recent},
            uses=uses_of({name: rows for name, rows in held_out.items() if rows}, state.uses),
            anchors=[cache.score_answers(model, parts.frozen) for model in state.served[:-1]],
            after_decay=call.trigger == "decay",
        )
        verdict = promotion_verdict(
            (scored[0], scored[1]), (challenger.frozen, challenger.recent), params.promote, params.evaluate, context
        )
        outcome, reason = verdict.outcome, verdict.reasons[0]
        state.uses = used_again(held_out, state.uses)
    done = Refresh(
        now,
        call.reason,
        outcome,
        reason,
        len(parts.train),
        learned.seconds,
        call.trigger,
        state.known_labels,
        call.since_fall,
    )
    state.refreshes.append(done)
    state.last = _last_refresh(parts, state.known_labels, ready, outcome)
    if done.promoted:
        state.pending = challenger
        state.served.append(challenger.model)
