"""The rows most worth a person's look."""

from __future__ import annotations

from dataclasses import dataclass

from perpetune.evaluation.evaluate import Evaluation


@dataclass(frozen=True)
class Mistake:
    """One row that a system did not answer as wanted."""

    id: str
    input: str
    wanted: str
    answer: str
    score: float
    confidence: float | None


def worst_mistakes(evaluation: Evaluation, system: str, limit: int) -> list[Mistake]:
    """The wrong answers of which the system was surest; for free text those with the lowest score."""
    scored = evaluation.scored[system]
    mistakes = [
        Mistake(*row)
        for row in zip(
            scored.ids,
            (evaluation.rows[position].input for position in scored.positions),
            evaluation.wanted_of(system),
            scored.texts,
            scored.scores,
            scored.confidences,
            strict=True,
        )
        if row[4] < 1
    ]
    return sorted(mistakes, key=lambda mistake: (mistake.score, -(mistake.confidence or 0.0), mistake.id))[:limit]
