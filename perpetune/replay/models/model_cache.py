"""Where all policies of a replay have their models taught and asked: nothing is learned or answered twice."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from perpetune.evaluation.scores.scoring import Scoring
from perpetune.records import Example
from perpetune.replay.models.learner import FittedModel, Learner, Model, Reply


@dataclass(frozen=True)
class ScoredAnswer:
    """What a model answered to a row, and how well: 0 to 1."""

    example: Example
    reply: Reply
    score: float


@dataclass
class ModelCache:
    """`tell` hears of each model that is being taught."""

    learner: Learner
    scoring: Scoring
    tell: Callable[[str], None] = lambda _: None
    _learned: dict[str, FittedModel] = field(default_factory=dict)
    _replies: dict[tuple[str, str], Reply] = field(default_factory=dict)

    def train(self, train: Sequence[Example], validation: Sequence[Example]) -> FittedModel:
        """The model that these rows make; each policy is charged with its training anew."""
        ids = "\n".join([*(row.id for row in train), "", *(row.id for row in validation)])
        key = hashlib.sha256(ids.encode()).hexdigest()
        if key not in self._learned:
            self.tell(f"learning from {len(train)} rows")
            self._learned[key] = self.learner.fit(train, validation)
        return self._learned[key]

    def score_answers(self, model: Model, rows: Sequence[Example], ahead: Sequence[Example] = ()) -> list[ScoredAnswer]:
        """The model's answers to the rows. It is asked about a few `ahead` with them, where it must be asked at all."""
        if any((model.digest, row.id) not in self._replies for row in rows):
            self._ask(model, [*rows, *ahead[: max(0, self.learner.at_once - len(rows))]])
        return [self._marked(row, self._replies[model.digest, row.id]) for row in rows]

    def _ask(self, model: Model, rows: Sequence[Example]) -> None:
        new = [row for row in rows if (model.digest, row.id) not in self._replies]
        for row, reply in zip(new, model.answer(new), strict=True):
            self._replies[model.digest, row.id] = reply

    def _marked(self, row: Example, reply: Reply) -> ScoredAnswer:
        return ScoredAnswer(row, reply, self.scoring.score_row(row, reply.answer))
