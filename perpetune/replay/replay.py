"""A replay: all policies through one history, side by side."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial

from perpetune.evaluation.scores.scoring import scoring_of
from perpetune.params import Params
from perpetune.replay.histories.history import History
from perpetune.replay.models.learner import Learner
from perpetune.replay.models.model_cache import ModelCache
from perpetune.replay.outcome import Outcome, as_it_was, outcome
from perpetune.replay.policies.evidently_preset import EvidentlyPreset
from perpetune.replay.policies.perpetune_policy import PerpetunePolicy
from perpetune.replay.policies.policy import Policy
from perpetune.replay.policies.scheduled import Never, Scheduled
from perpetune.replay.simulate import simulate


@dataclass(frozen=True)
class Replay:
    """`metric` is what scores mean, `model` what answered in place of the served one."""

    history: str
    metric: str
    model: str
    requests: int
    days: float
    taught: int
    rejected: tuple[str, ...]
    outcomes: tuple[Outcome, ...]


def policies(params: Params) -> tuple[Policy, ...]:
    return (
        Never(),
        Scheduled(params.refresh.cron),
        EvidentlyPreset(params.watch, params.task.kind),
        PerpetunePolicy(params),
    )


def replay(
    history: History,
    learner: Learner,
    params: Params,
    tell: Callable[[str], None] = lambda _: None,
    step: Callable[[str, int], None] = lambda policy, count: None,
    only: Collection[str] = (),
) -> Replay:
    """Take the history, already divided, through each policy, or through those named.

    `tell` hears what is taught, `step` what was answered.

    Raises PerpetuneError where too little is taught.
    """
    least = params.watch.min_rows
    scoring = scoring_of(params.task.kind, params.task.output_schema)
    cache = ModelCache(learner, scoring, tell)
    outcomes = []
    for policy in policies(params):
        if only and policy.name not in only:
            continue
        run = simulate(history, policy, cache, params, partial(step, policy.name))
        outcomes.append(outcome(run, history, params.evaluate, least))
    recorded = [
        None if request.answer is None else scoring.score_row(request.example, request.answer)
        for request in history.requests
    ]
    if any(each is not None for each in recorded):
        outcomes.append(as_it_was(history, recorded, params.evaluate, least))
    return Replay(
        history=history.name,
        metric=scoring.main,
        model=learner.name,
        requests=len(history.requests),
        days=history.days,
        taught=len(history.taught),
        rejected=tuple(str(row) for row in history.rejected),
        outcomes=tuple(outcomes),
    )
