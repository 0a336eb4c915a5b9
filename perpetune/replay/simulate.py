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
from perpetune.replay.models.model_cache import Marked, School
from perpetune.replay.policies.gate import judge
from perpetune.replay.policies.policy import Call, Champion, Policy, Refresh, Sight, unsuccessful


@dataclass(frozen=True)
class Lived:
    """What became of a policy: an answer to each request, in order, and its refreshes."""

    policy: str
    answers: tuple[Marked, ...]
    refreshes: tuple[Refresh, ...]


@dataclass
class _Life:
    champion: Champion
    last: LastRefresh  # or what the first model was made of
    answers: list[Marked] = field(default_factory=list)
    mine: list[Marked] = field(default_factory=list)  # of the present champion
    began: int = 0  # the first request that the present champion answered
    told: int = 0  # labels that have become known
    next: Champion | None = None  # released as soon as it is trained
    refreshes: list[Refresh] = field(default_factory=list)


def live(
    history: History, policy: Policy, school: School, params: Params, tell: Callable[[int], None] = lambda _: None
) -> Lived:
    """Answer every request with the champion of its moment, retraining when the policy says so.

    The first champion learns from `history.taught`. At a refresh the data are split as curation splits them: what was
    taught, and as traffic each request whose label is known by then. A policy with a gate does not run a refresh that has
    too little new. A challenger takes over once its training is
    over. `tell` hears how many requests have been answered. Raises PerpetuneError where too little is taught.
    """
    requests = history.requests
    by_label = sorted(range(len(requests)), key=lambda place: (requests[place].known, place))
    life = _Life(*_first(history, school, params))
    for now in policy.looks(history.begins, history.ends):
        _answer(life, history, school, now, tell)
        judged = _judged(life, history, by_label, now)
        since = life.told - life.last.labels
        call = policy.look(Sight(now, life.champion, life.mine, judged, tuple(life.refreshes), since))
        if call is not None and life.next is None:
            _refresh(life, history, by_label, policy, school, params, now, call)
    _answer(life, history, school, None, tell)
    return Lived(policy.name, tuple(life.answers), tuple(life.refreshes))


def _first(history: History, school: School, params: Params) -> tuple[Champion, LastRefresh]:
    parts = split(history.taught, params.split)
    if len(parts.train) < params.split.min_train_rows or not parts.frozen:
        raise PerpetuneError(
            f"the first model is taught {len(history.taught)} rows, of which {len(parts.train)} are to train on and "
            f"{len(parts.frozen)} to judge by: too few",
            where=history.name,
            do="teach it more: a larger --start, or --examples",
        )
    learned = school.teach(parts.train, parts.validation)
    return _champion(learned.model, history.begins, parts, school), _as_last(parts, 0, history.begins, "promote")


def _as_last(parts: Splits, labels: int, ended: datetime, outcome: str) -> LastRefresh:
    """What the next refresh must differ from: in a replay neither settings nor programs change."""
    now = _data(parts, labels)
    return LastRefresh(ended, outcome, now.version, now.rows, labels, same_settings=True, stands=True)


def _data(parts: Splits, labels: int) -> NewData:
    ids = [[row.id for row in rows] for rows in parts.parts().values()]
    return NewData(hashlib.sha256(str(ids).encode()).hexdigest(), sum(map(len, ids)), labels)


def _champion(model: Model, since: datetime, parts: Splits, school: School) -> Champion:
    return Champion(model, since, tuple(school.mark(model, parts.frozen)), tuple(school.mark(model, parts.recent)))


def _answer(life: _Life, history: History, school: School, until: datetime | None, tell: Callable[[int], None]) -> None:
    """All requests asked before `until`; None: all that are left."""
    requests = history.requests
    while True:
        place = len(life.answers)
        if life.next is not None and (place == len(requests) or requests[place].asked >= life.next.since):
            life.champion, life.next = life.next, None
            life.mine, life.began = [], place
        end = place
        while end < len(requests) and (until is None or requests[end].asked < until):
            if life.next is not None and requests[end].asked >= life.next.since:
                break
            end += 1
        if end == place:
            return
        ahead = [request.example for request in requests[end : end + school.learner.at_once]]
        marks = school.mark(life.champion.model, [request.example for request in requests[place:end]], ahead)
        life.answers += marks
        life.mine += marks
        tell(len(marks))


def _judged(life: _Life, history: History, by_label: list[int], now: datetime) -> list[float]:
    """The scores of the present champion's answers whose labels became known since the last look."""
    first = life.told
    while life.told < len(by_label) and history.requests[by_label[life.told]].known <= now:
        life.told += 1
    fresh = by_label[first : life.told]
    return [life.answers[place].score for place in fresh if life.began <= place < len(life.answers)]


def _refresh(
    life: _Life,
    history: History,
    by_label: list[int],
    policy: Policy,
    school: School,
    params: Params,
    now: datetime,
    call: Call,
) -> None:
    known = [history.requests[place].example for place in by_label[: life.told]]
    traffic = [example.model_copy(update={"source": "traffic"}) for example in known]
    parts = split([*history.taught, *traffic], params.split)
    vain = unsuccessful(life.refreshes)
    if policy.gated and nothing_new(life.last, _data(parts, life.told), call.trigger, vain, params.refresh):
        return
    learned = school.teach(parts.train, parts.validation)
    ready = now + timedelta(seconds=learned.seconds)
    challenger = _champion(learned.model, ready, parts, school)
    outcome, reason = "released", "This policy releases whatever it has trained."
    if policy.gated:
        marks = [school.mark(life.champion.model, rows) for rows in (parts.frozen, parts.recent)]
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
