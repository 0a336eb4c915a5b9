"""A cache of trained models and answers, shared by all policies of a replay."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from perpetune.evaluation.scores.scoring import Scoring
from perpetune.records import Example
from perpetune.replay.models.learner import FittedModel, Learner, Model, Reply


@dataclass(frozen=True)
class ScoredAnswer:
    """A model's answer to a row and its score (0 to 1)."""

    example: Example
    reply: Reply
    score: float


@dataclass
class ModelCache:
    """Trains each model and computes each answer once; `log` gets a line before each training."""

    learner: Learner
    scoring: Scoring
    log: Callable[[str], None] = lambda _: None
    _models: dict[str, FittedModel] = field(default_factory=dict)
    _replies: dict[tuple[str, str], Reply] = field(default_factory=dict)

    def train(self, train: Sequence[Example], validation: Sequence[Example]) -> FittedModel:
        """The model trained on these rows; every policy is charged its training time."""
        ids = "\n".join([*(row.id for row in train), "", *(row.id for row in validation)])
        key = hashlib.sha256(ids.encode()).hexdigest()
        if key not in self._models:
            self.log(f"training on {len(train)} rows")
            self._models[key] = self.learner.fit(train, validation)
        return self._models[key]

    def score_answers(self, model: Model, rows: Sequence[Example], ahead: Sequence[Example] = ()) -> list[ScoredAnswer]:
        """The model's scored answers to the rows; if some are not cached, rows `ahead` fill up the batch."""
        if any((model.digest, row.id) not in self._replies for row in rows):
            self._predict(model, [*rows, *ahead[: max(0, self.learner.batch_size - len(rows))]])
        return [self._scored(row, self._replies[model.digest, row.id]) for row in rows]

    def _predict(self, model: Model, rows: Sequence[Example]) -> None:
        new = [row for row in rows if (model.digest, row.id) not in self._replies]
        for row, reply in zip(new, model.answer(new), strict=True):
            self._replies[model.digest, row.id] = reply

    def _scored(self, row: Example, reply: Reply) -> ScoredAnswer:
        return ScoredAnswer(row, reply, self.scoring.score_row(row, reply.answer))
