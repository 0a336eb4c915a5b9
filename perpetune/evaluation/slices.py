"""The held-out rows of one label or one source, of all holdouts together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from perpetune.evaluation.evaluate import Evaluation, common_positions


@dataclass(frozen=True)
class Slice:
    """The scores of two systems on the same rows."""

    theirs: tuple[float, ...]
    ours: tuple[float, ...]


def slices(evaluations: Iterable[Evaluation], against: str, subject: str | None = None) -> dict[str, Slice]:
    """Every slice by its name ("label positive", "source traffic"), in order: the rows that both have answered.

    Labels are the wanted outputs of a classification. One label or source that has all rows is no slice. `subject` is
    the challenger unless another system is named.
    """
    members: dict[str, list[tuple[float, float]]] = {}
    total = 0
    for evaluation in evaluations:
        for names, pair in _rows(evaluation, against, subject or evaluation.subject):
            total += 1
            for name in names:
                members.setdefault(name, []).append(pair)
    return {name: _slice(pairs) for name, pairs in sorted(members.items()) if len(pairs) < total}


def paired_scores(evaluation: Evaluation, against: str, subject: str) -> Slice:
    """The scores of both on the rows that both have answered."""
    one, other = evaluation.scored[against], evaluation.scored[subject]
    positions = common_positions(one, other)
    return Slice(one.at(positions), other.at(positions))


def labels_of(evaluation: Evaluation, against: str, subject: str) -> list[str]:
    """The wanted labels of the same rows, in the same order."""
    wanted = evaluation.wanted
    return [wanted[position] for position in common_positions(evaluation.scored[against], evaluation.scored[subject])]


def _rows(evaluation: Evaluation, against: str, subject: str) -> Iterator[tuple[list[str], tuple[float, float]]]:
    """The names of the slices that a row is in, with the scores of the other and of the subject."""
    if against not in evaluation.scored or subject not in evaluation.scored:
        return
    positions = common_positions(evaluation.scored[against], evaluation.scored[subject])
    scores, wanted = paired_scores(evaluation, against, subject), evaluation.wanted
    for position, their, our in zip(positions, scores.theirs, scores.ours, strict=True):
        labels = [f"label {wanted[position]}"] if evaluation.kind == "classification" else []
        yield [*labels, f"source {evaluation.rows[position].source}"], (their, our)


def _slice(pairs: list[tuple[float, float]]) -> Slice:
    return Slice(tuple(their for their, _ in pairs), tuple(our for _, our in pairs))
