"""A replay: simulate all policies on one history and compare them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial

from perpetune.evaluation.scores.scoring import scoring_of
from perpetune.params import EvaluateParams, Params
from perpetune.replay.histories.history import History
from perpetune.replay.models.learner import Learner
from perpetune.replay.models.model_cache import ModelCache
from perpetune.replay.outcome import Outcome, lead_of, outcome, recorded_outcome
from perpetune.replay.policies.evidently_preset import EvidentlyPreset
from perpetune.replay.policies.perpetune_policy import PERPETUNE, PerpetunePolicy
from perpetune.replay.policies.policy import Policy
from perpetune.replay.policies.scheduled import Never, Scheduled
from perpetune.replay.simulate import PolicyRun, simulate


@dataclass(frozen=True)
class Replay:
    """The result of a replay: the history, the metric of the scores, the model that answered, and each policy's outcome."""

    history: str
    metric: str
    model: str
    requests: int
    days: float
    initial: int
    rejected: tuple[str, ...]
    outcomes: tuple[Outcome, ...]


def policies(params: Params) -> tuple[Policy, ...]:
    """The policies that are compared."""
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
    log: Callable[[str], None] = lambda _: None,
    step: Callable[[str, int], None] = lambda policy, count: None,
    only: Collection[str] = (),
) -> Replay:
    """Simulate each policy, or those named in `only`, on a history with initial examples.

    `log` gets a line before each training, `step` the policy and the number of requests answered.

    Raises PerpetuneError if there are too few initial examples.
    """
    least = params.watch.min_rows
    scoring = scoring_of(params.task.kind, params.task.output_schema)
    cache = ModelCache(learner, scoring, log)
    chosen = [policy for policy in policies(params) if not only or policy.name in only]
    runs = [simulate(history, policy, cache, params, partial(step, policy.name)) for policy in chosen]
    outcomes = [_outcome(run, runs, history, params.evaluate, least) for run in runs]
    recorded = [
        None if request.answer is None else scoring.score_row(request.example, request.answer)
        for request in history.requests
    ]
    if any(each is not None for each in recorded):
        outcomes.append(recorded_outcome(history, recorded, params.evaluate, least))
    return Replay(
        history=history.name,
        metric=scoring.main,
        model=learner.name,
        requests=len(history.requests),
        days=history.days,
        initial=len(history.initial),
        rejected=tuple(str(row) for row in history.rejected),
        outcomes=tuple(outcomes),
    )


def _outcome(
    run: PolicyRun, runs: Sequence[PolicyRun], history: History, params: EvaluateParams, least: int
) -> Outcome:
    """The result of a run, beside that of perpetune's policy if there is one among `runs`."""
    found = outcome(run, history, params, least)
    ours = next((each for each in runs if each.policy == PERPETUNE), None)
    return found if ours is None or ours is run else replace(found, perpetune_lead=lead_of(ours, run, params))
