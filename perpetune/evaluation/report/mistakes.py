"""The worst mistakes of a system, for manual review."""

from __future__ import annotations

from dataclasses import dataclass

from perpetune.evaluation.evaluate import Evaluation


@dataclass(frozen=True)
class Mistake:
    """A row with a wrong or imperfect answer."""

    id: str
    input: str
    expected: str
    answer: str
    score: float
    confidence: float | None


def worst_mistakes(evaluation: Evaluation, system: str, limit: int) -> list[Mistake]:
    """The wrong answers with the highest confidence; for free text those with the lowest score."""
    scored = evaluation.scored[system]
    mistakes = [
        Mistake(*row)
        for row in zip(
            scored.ids,
            (evaluation.rows[position].input for position in scored.positions),
            evaluation.expected_of(system),
            scored.texts,
            scored.scores,
            scored.confidences,
            strict=True,
        )
        if row[4] < 1
    ]
    return sorted(mistakes, key=lambda mistake: (mistake.score, -(mistake.confidence or 0.0), mistake.id))[:limit]
