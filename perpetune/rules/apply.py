"""Applying rules: votes, their combination, and what each rule is worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perpetune.errors import PerpetuneError
from perpetune.records import Example
from perpetune.rules.ask import Question, ask, questions, vote
from perpetune.rules.combine import combine
from perpetune.rules.load import RuleFile
from perpetune.rules.prompt import Prompt
from perpetune.rules.replies import ReplyCache
from perpetune.rules.table import RuleSummary, accuracy_of, summaries
from perpetune.rules.votes import ABSTAINED, Column, Faults, Spelling, Votes, votes, votes_of
from perpetune.statistics.estimate import Estimate

NOBODY = "no rule voted"
DIVIDED = "the rules are divided"
_TIE = 1e-9
_FOLDS = 5


@dataclass(frozen=True)
class RuledRow:
    """A row with the votes of its rules; `label` is None if they leave it without, and `why` says why."""

    row: Example
    votes: dict[str, str]
    label: str | None
    confidence: float
    why: str = ""


@dataclass(frozen=True)
class RulesResult:
    """The rows in order, a summary and the exceptions of each rule, rules that count as one, and the accuracy on gold."""

    rows: tuple[RuledRow, ...]
    rules: tuple[RuleSummary, ...]
    faults: dict[str, Faults]
    alike: tuple[str, ...]
    gold: Estimate | None
    gold_covered: Estimate | None

    @property
    def labelled(self) -> tuple[RuledRow, ...]:
        return tuple(row for row in self.rows if row.label is not None)

    @property
    def abstained(self) -> tuple[RuledRow, ...]:
        return tuple(row for row in self.rows if row.label is None)


def prompt_questions(
    file: RuleFile, rows: Sequence[Example], labels: Sequence[str] | None, instruction: str, path: Path
) -> dict[str, tuple[Prompt, list[Question]]]:
    """What each prompt of the file asks. Raises PerpetuneError if there are prompts, and the labels are not known."""
    if file.prompts and not labels:
        raise PerpetuneError(
            f"`{next(iter(file.prompts))}` asks a model for a label, and the task's labels are not known",
            where=str(path),
            do="set task.labels in params.yaml",
        )
    return {name: (prompt, questions(prompt, rows, labels or (), instruction)) for name, prompt in file.prompts.items()}


def apply_rules(
    file: RuleFile,
    rows: Sequence[Example],
    gold: Sequence[Example],
    spelled: Spelling,
    path: Path,
    *,
    labels: Sequence[str] | None,
    asked: dict[str, tuple[Prompt, list[Question]]],
    cache: ReplyCache | None,
    min_confidence: float,
) -> RulesResult:
    """Label `rows` by the rules; `gold` are rows whose outputs are right, on which accuracy is measured.

    `asked` are the questions of the prompts for rows and gold, in this order. Raises PerpetuneError if a rule returns what is no label.
    """
    every = [*rows, *gold]
    columns: dict[str, Column] = {}
    faults: dict[str, Faults] = {}
    for rule in file.rules:
        found = votes_of(rule, every, spelled, path)
        columns[rule.name] = found.column
        if found.faults:
            faults[rule.name] = found.faults
    for name, (prompt, each) in asked.items():
        assert cache is not None and labels is not None
        if too_long := ask(name, prompt, each, cache):
            faults[name] = too_long
        columns[name] = [vote(question, labels, cache) for question in each]
    return _result(votes(columns, labels), rows, gold, faults, min_confidence)


def _result(
    cast: Votes, rows: Sequence[Example], gold: Sequence[Example], faults: dict[str, Faults], min_confidence: float
) -> RulesResult:
    right = [row.output for row in gold]
    number = {label: index for index, label in enumerate(cast.labels)}
    truth = np.array([ABSTAINED] * len(rows) + [number.get(label, ABSTAINED) for label in right], dtype=np.int64)
    combined = combine(cast.of, len(cast.labels), truth)
    own = _ruled_rows(rows, cast, combined.probabilities, min_confidence)
    found = [row.label for row in _cross_fitted(gold, cast, truth, min_confidence)]
    return RulesResult(
        tuple(own),
        tuple(
            summaries(
                _part(cast, slice(0, len(rows))),
                combined.accuracies.tolist(),
                _part(cast, slice(len(rows), None)),
                right,
            )
        ),
        faults,
        tuple(name for name, weight in zip(cast.rules, combined.weights, strict=True) if weight < 1),
        accuracy_of(found, right),
        accuracy_of(["covered" if label else "not" for label in found], ["covered"] * len(found)),
    )


def _cross_fitted(
    gold: Sequence[Example], cast: Votes, truth: NDArray[np.int64], min_confidence: float
) -> list[RuledRow]:
    """The gold rows, each labelled as if its own label and those of every fifth other one were not known."""
    first = len(cast.of) - len(gold)
    ruled: dict[int, RuledRow] = {}
    for fold in range(min(_FOLDS, len(gold))):
        places = range(first + fold, len(cast.of), _FOLDS)
        hidden = truth.copy()
        hidden[places] = ABSTAINED
        found = combine(cast.of, len(cast.labels), hidden).probabilities
        for place in places:
            ruled[place] = _ruled(
                gold[place - first], cast.named(place), cast.labels, found[place].tolist(), min_confidence
            )
    return [ruled[place] for place in sorted(ruled)]


def _ruled_rows(
    rows: Sequence[Example], cast: Votes, probabilities: NDArray[np.float64], min_confidence: float
) -> list[RuledRow]:
    return [
        _ruled(row, cast.named(number), cast.labels, probabilities[number].tolist(), min_confidence)
        for number, row in enumerate(rows)
    ]


def _part(cast: Votes, rows: slice) -> Votes:
    return Votes(cast.rules, cast.labels, cast.of[rows])


def _ruled(
    row: Example, named: dict[str, str], labels: Sequence[str], probabilities: Sequence[float], min_confidence: float
) -> RuledRow:
    if not named:
        return RuledRow(row, named, None, 0.0, NOBODY)
    confidence = max(probabilities)
    likeliest = [label for label, found in zip(labels, probabilities, strict=True) if found > confidence - _TIE]
    if len(likeliest) > 1 or confidence < min_confidence:
        return RuledRow(row, named, None, confidence, DIVIDED)
    return RuledRow(row, named, likeliest[0], confidence)
