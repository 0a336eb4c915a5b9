"""The scores of a stable period, for calibration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from perpetune.curation.steps.split import split
from perpetune.evaluation.scores.scoring import scoring_of
from perpetune.params import Params
from perpetune.replay.histories.history import History, with_initial_examples
from perpetune.replay.models.learner import Learner
from perpetune.replay.models.model_cache import ModelCache
from perpetune.replay.policies.scheduled import Never
from perpetune.replay.simulate import simulate


@dataclass(frozen=True)
class StablePeriod:
    """Scores in the order in which their labels became known, the length in days, and the model that answered.

    `holdout` is the number of rows of the champion's reference.
    """

    scores: tuple[float, ...]
    days: float
    answered_by: str
    holdout: int


def stable_scores(
    history: History, learner: Learner, params: Params, start: float, log: Callable[[str], None] = lambda _: None
) -> StablePeriod:
    """Scores of the recorded answers if every request has one, otherwise of a model trained on the start."""
    scoring = scoring_of(params.task.kind, params.task.output_schema)
    if all(request.answer is not None for request in history.requests):
        scores = [scoring.score_row(request.example, str(request.answer)) for request in history.requests]
        by, holdout = "the recorded answers", params.reference.min_recent
    else:
        history = with_initial_examples(history, start)
        cache = ModelCache(learner, scoring, log)
        scores = [scored.score for scored in simulate(history, Never(), cache, params).answers]
        by, holdout = learner.name, len(split(history.initial, params.split).frozen)
    by_label = sorted(range(len(scores)), key=lambda position: (history.requests[position].label_time, position))
    return StablePeriod(tuple(scores[position] for position in by_label), history.days, by, holdout)
