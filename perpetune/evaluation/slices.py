"""Slices: the held-out rows of one label or one source, over all holdouts."""

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
    """The slices by name ("label positive", "source traffic"), of the rows that both systems have answered.

    Label slices are by expected output, for classification only. A label or source with all rows is no slice. `subject`
    is the evaluation's subject by default.
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
    """The scores of two systems on the rows that both have answered."""
    one, other = evaluation.scored[against], evaluation.scored[subject]
    positions = common_positions(one, other)
    return Slice(one.at(positions), other.at(positions))


def labels_of(evaluation: Evaluation, against: str, subject: str) -> list[str]:
    """The expected labels of the rows of `paired_scores`."""
    expected = evaluation.expected
    return [expected[position] for position in common_positions(evaluation.scored[against], evaluation.scored[subject])]


def _rows(evaluation: Evaluation, against: str, subject: str) -> Iterator[tuple[list[str], tuple[float, float]]]:
    """The slice names of each row, with the scores of the other system and the subject."""
    if against not in evaluation.scored or subject not in evaluation.scored:
        return
    positions = common_positions(evaluation.scored[against], evaluation.scored[subject])
    scores, expected = paired_scores(evaluation, against, subject), evaluation.expected
    for position, their, our in zip(positions, scores.theirs, scores.ours, strict=True):
        labels = [f"label {expected[position]}"] if evaluation.kind == "classification" else []
        yield [*labels, f"source {evaluation.rows[position].source}"], (their, our)


def _slice(pairs: list[tuple[float, float]]) -> Slice:
    return Slice(tuple(their for their, _ in pairs), tuple(our for _, our in pairs))
