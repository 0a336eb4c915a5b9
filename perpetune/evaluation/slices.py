"""Slices: the held-out rows of one label or one source, over all holdouts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from perpetune.evaluation.evaluate import Evaluation, SystemResults, common_positions

LEAST_WEIGHT = 1e-6  # of a row whose mistakes cost nothing, as a ratio of the largest cost

Scores = tuple[float, ...]


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
    members = _members(evaluations, against, subject)
    return {name: joined(scores for scores, _ in rows) for name, rows in members.items()}


def inputs_of_slices(
    evaluations: Iterable[Evaluation], against: str, subject: str | None = None
) -> dict[str, list[str]]:
    """The inputs of the rows of each slice, by name."""
    members = _members(evaluations, against, subject)
    return {name: [text for _, text in rows] for name, rows in members.items()}


def _members(
    evaluations: Iterable[Evaluation], against: str, subject: str | None
) -> dict[str, list[tuple[Slice, str]]]:
    """Each row of a slice as a slice of its own, with its input."""
    members: dict[str, list[tuple[Slice, str]]] = {}
    total = 0
    for evaluation in evaluations:
        for names, row, text in _rows(evaluation, against, subject or evaluation.subject):
            total += 1
            for name in names:
                members.setdefault(name, []).append((row, text))
    return {name: rows for name, rows in sorted(members.items()) if len(rows) < total}


def paired_scores(evaluation: Evaluation, against: str, subject: str) -> Slice:
    """The scores of two systems on the rows that both have answered, as the gate counts them (`promote.costs`)."""
    return _paired(evaluation, against, subject, partial(_gate_scores, evaluation))


def right_by_label(evaluations: Iterable[Evaluation], against: str, subject: str) -> dict[str, Slice]:
    """By expected label, whether (1 or 0) the two systems are right on the rows that both have answered."""
    members: dict[str, list[Slice]] = {}
    for evaluation in evaluations:
        if evaluation.kind == "classification" and {against, subject} <= set(evaluation.scored):
            scores = _paired(evaluation, against, subject, SystemResults.at)
            for label, row in zip(labels_of(evaluation, against, subject), _each(scores), strict=True):
                members.setdefault(label, []).append(row)
    return {label: joined(rows) for label, rows in sorted(members.items())}


def _paired(
    evaluation: Evaluation, against: str, subject: str, scores: Callable[[SystemResults, Sequence[int]], Scores]
) -> Slice:
    one, other = evaluation.scored[against], evaluation.scored[subject]
    positions = common_positions(one, other)
    rows = [evaluation.rows[position] for position in positions]
    return Slice(
        scores(one, positions),
        scores(other, positions),
        tuple(row.group for row in rows),
        tuple(row.weight for row in rows),
    )


def _gate_scores(evaluation: Evaluation, system: SystemResults, positions: Sequence[int]) -> Scores:
    texts = dict(zip(system.positions, system.texts, strict=True))
    return tuple(evaluation.gate_score(evaluation.rows[each], texts[each]) for each in positions)


def _of_worst(scores: Slice, evaluation: Evaluation, positions: Sequence[int]) -> Slice:
    """The same rows with costs as a ratio of the largest one that an answer to the row may have, which is its weight.

    So a slice may lose the same part of what there is to lose on it, whether its mistakes are cheap or dear.
    """
    costs = evaluation.costs
    if costs is None:
        return scores
    worst = [max(costs.worst(evaluation.rows[each]) / costs.largest, LEAST_WEIGHT) for each in positions]
    theirs, ours = (
        tuple(round(max(0.0, 1 - (1 - score) / most), 12) for score, most in zip(some, worst, strict=True))
        for some in (scores.theirs, scores.ours)
    )
    weights = tuple(weight * most for weight, most in zip(scores.weights, worst, strict=True))
    return Slice(theirs, ours, scores.groups, weights)


def _each(scores: Slice) -> Iterator[Slice]:
    """Each row as a slice of its own."""
    rows = zip(scores.theirs, scores.ours, scores.groups, scores.weights, strict=True)
    return (Slice((their,), (our,), (group,), (weight,)) for their, our, group, weight in rows)


def labels_of(evaluation: Evaluation, against: str, subject: str) -> list[str]:
    """The expected labels of the rows of `paired_scores`."""
    expected = evaluation.expected
    return [expected[position] for position in common_positions(evaluation.scored[against], evaluation.scored[subject])]


def _rows(evaluation: Evaluation, against: str, subject: str) -> Iterator[tuple[list[str], Slice, str]]:
    """The slice names of each row, with the row as a slice of its own and its input."""
    if against not in evaluation.scored or subject not in evaluation.scored:
        return
    positions, expected = common_positions(evaluation.scored[against], evaluation.scored[subject]), evaluation.expected
    scores = _of_worst(paired_scores(evaluation, against, subject), evaluation, positions)
    for position, row in zip(positions, _each(scores), strict=True):
        labels = [f"label {expected[position]}"] if evaluation.kind == "classification" else []
        yield [*labels, f"source {evaluation.rows[position].source}"], row, evaluation.rows[position].input
