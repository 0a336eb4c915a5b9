"""The scores of a quiet stretch, as a champion of that time got them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from perpetune.curation.steps.split import split
from perpetune.evaluation.scores.scoring import scoring_of
from perpetune.params import Params
from perpetune.replay.histories.history import History, divided
from perpetune.replay.models.learner import Learner
from perpetune.replay.models.model_cache import ModelCache
from perpetune.replay.policies.scheduled import Never
from perpetune.replay.simulate import simulate


@dataclass(frozen=True)
class StablePeriod:
    """Scores in the order in which their labels became known, the days they took, and whose answers they are of.

    `holdout` is how many rows the champion's bound rests on.
    """

    scores: tuple[float, ...]
    days: float
    answered_by: str
    holdout: int


def stable_scores(
    history: History, learner: Learner, params: Params, start: float, tell: Callable[[str], None] = lambda _: None
) -> StablePeriod:
    """Of the recorded answers where every request has one, else of a model that is taught the start."""
    scoring = scoring_of(params.task.kind, params.task.output_schema)
    if all(request.answer is not None for request in history.requests):
        scores = [scoring.score_row(request.example, str(request.answer)) for request in history.requests]
        by, holdout = "the recorded answers", params.reference.min_recent
    else:
        history = divided(history, start)
        cache = ModelCache(learner, scoring, tell)
        scores = [scored.score for scored in simulate(history, Never(), cache, params).answers]
        by, holdout = learner.name, len(split(history.taught, params.split).frozen)
    by_label = sorted(range(len(scores)), key=lambda position: (history.requests[position].known, position))
    return StablePeriod(tuple(scores[position] for position in by_label), history.days, by, holdout)
