"""The held-out rows of one label or one source, of all holdouts together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from perpetune.evaluation.evaluate import Evaluation


@dataclass(frozen=True)
class Slice:
    """The scores of two systems on the same rows."""

    theirs: tuple[float, ...]
    ours: tuple[float, ...]


def slices(evaluations: Iterable[Evaluation], against: str, least: int) -> dict[str, Slice]:
    """Every slice of at least `least` rows by its name ("label positive", "source traffic"), in order.

    Labels are the wanted outputs of a classification. One label or source that has all rows is no slice.
    """
    members: dict[str, list[tuple[float, float]]] = {}
    total = 0
    for evaluation in evaluations:
        total += len(evaluation.rows)
        for names, pair in _rows(evaluation, against):
            for name in names:
                members.setdefault(name, []).append(pair)
    return {name: _slice(pairs) for name, pairs in sorted(members.items()) if least <= len(pairs) < total}


def _rows(evaluation: Evaluation, against: str) -> Iterator[tuple[list[str], tuple[float, float]]]:
    """The names of the slices that a row is in, with the scores of the other and of the subject."""
    theirs, ours = evaluation.scored[against].scores, evaluation.scored[evaluation.subject].scores
    for row, wanted, their, our in zip(evaluation.rows, evaluation.wanted, theirs, ours, strict=True):
        labels = [f"label {wanted}"] if evaluation.kind == "classification" else []
        yield [*labels, f"source {row.source}"], (their, our)


def _slice(pairs: list[tuple[float, float]]) -> Slice:
    return Slice(tuple(their for their, _ in pairs), tuple(our for _, our in pairs))
