"""Slices: the held-out rows of one label or one source, over all holdouts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from perpetune.evaluation.evaluate import Evaluation, common_positions


@dataclass(frozen=True)
class Slice:
    """The scores of two systems on the same rows.

    Rows of one of the `groups` (a user, a document) are one observation; () if each row is one. `weights` are what rows
    count in a mean; () if all count alike.
    """

    theirs: tuple[float, ...]
    ours: tuple[float, ...]
    groups: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()


def joined(parts: Iterable[Slice]) -> Slice:
    """The rows of several slices as one."""
    known = list(parts)
    return Slice(
        tuple(score for part in known for score in part.theirs),
        tuple(score for part in known for score in part.ours),
        tuple(group for part in known for group in part.groups),
        tuple(weight for part in known for weight in part.weights),
    )


def slices(evaluations: Iterable[Evaluation], against: str, subject: str | None = None) -> dict[str, Slice]:
    """The slices by name ("label positive", "source traffic"), of the rows that both systems have answered.

    Label slices are by expected output, for classification only. A label or source with all rows is no slice. `subject`
    is the evaluation's subject by default.
    """
    members: dict[str, list[Slice]] = {}
    total = 0
    for evaluation in evaluations:
        for names, row in _rows(evaluation, against, subject or evaluation.subject):
            total += 1
            for name in names:
                members.setdefault(name, []).append(row)
    return {name: joined(rows) for name, rows in sorted(members.items()) if len(rows) < total}


def paired_scores(evaluation: Evaluation, against: str, subject: str) -> Slice:
    """The scores of two systems on the rows that both have answered."""
    one, other = evaluation.scored[against], evaluation.scored[subject]
    positions = common_positions(one, other)
    rows = [evaluation.rows[position] for position in positions]
    return Slice(
        one.at(positions),
        other.at(positions),
        tuple(row.group for row in rows),
        tuple(row.weight for row in rows),
    )


def labels_of(evaluation: Evaluation, against: str, subject: str) -> list[str]:
    """The expected labels of the rows of `paired_scores`."""
    expected = evaluation.expected
    return [expected[position] for position in common_positions(evaluation.scored[against], evaluation.scored[subject])]


def _rows(evaluation: Evaluation, against: str, subject: str) -> Iterator[tuple[list[str], Slice]]:
    """The slice names of each row, with the row as a slice of its own."""
    if against not in evaluation.scored or subject not in evaluation.scored:
        return
    positions = common_positions(evaluation.scored[against], evaluation.scored[subject])
    scores, expected = paired_scores(evaluation, against, subject), evaluation.expected
    rows = zip(positions, scores.theirs, scores.ours, scores.groups, scores.weights, strict=True)
    for position, their, our, group, weight in rows:
        labels = [f"label {expected[position]}"] if evaluation.kind == "classification" else []
        row = Slice((their,), (our,), (group,), (weight,))
        yield [*labels, f"source {evaluation.rows[position].source}"], row
