"""The votes of rules on rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perpetune.curation.rows.label_key import label_key
from perpetune.curation.text import shortened
from perpetune.errors import PerpetuneError
from perpetune.records import Example
from perpetune.rules.load import described
from perpetune.rules.rule import Rule

ABSTAINED = -1
Column = Sequence[str | None]
Spelling = Callable[[str], str | None]
"""A label in the task's spelling; None if it is no label of the task."""


@dataclass(frozen=True)
class Votes:
    """Votes, shape (rows, rules): the index of a label, or ABSTAINED."""

    rules: tuple[str, ...]
    labels: tuple[str, ...]
    of: NDArray[np.int64]

    def named(self, row: int) -> dict[str, str]:
        """The label that each rule voted for, of those that did."""
        votes = zip(self.rules, self.of[row], strict=True)
        return {rule: self.labels[vote] for rule, vote in votes if vote != ABSTAINED}


@dataclass(frozen=True)
class Faults:
    """How often a rule raised an exception, each an abstention, and the first one."""

    count: int
    first: str


@dataclass(frozen=True)
class RuleVotes:
    column: tuple[str | None, ...]
    faults: Faults | None


def spelling(labels: Sequence[str] | None) -> Spelling:
    """The spelling of known labels, or that every text is a label if none are known."""
    if labels is None:
        return lambda label: label.strip() or None
    known = {label_key(label): label for label in labels}
    return lambda label: known.get(label_key(label))


def votes_of(rule: Rule, rows: Sequence[Example], spelled: Spelling, path: Path) -> RuleVotes:
    """The rule's vote on each row; an exception is an abstention.

    Raises PerpetuneError, with the rule's name, if it returns something that is no label.
    """
    column: list[str | None] = []
    faults: list[str] = []
    for row in rows:
        try:
            returned = rule.function(row)
        except Exception as fault:
            faults.append(described(fault, path) if not faults else "")
            returned = None
        column.append(_label(returned, rule, row, spelled, path))
    return RuleVotes(tuple(column), Faults(len(faults), faults[0]) if faults else None)


def _label(returned: object, rule: Rule, row: Example, spelled: Spelling, path: Path) -> str | None:
    if returned is None:
        return None
    label = spelled(returned) if isinstance(returned, str) else None
    if label is None:
        raise PerpetuneError(
            f"the rule `{rule.name}` returned {returned!r:.60}, which is no label of the task, for {shortened(row.input, 60)!r}",
            where=str(path),
            do="return a label exactly, or None to abstain; the labels are task.labels in params.yaml, else those of your data",
        )
    return label


def votes(columns: Mapping[str, Column], labels: Sequence[str] | None = None) -> Votes:
    """The columns of all rules as one matrix; without `labels` they are those voted for, sorted."""
    voted = {vote for column in columns.values() for vote in column if vote is not None}
    every = tuple(labels) if labels is not None else tuple(sorted(voted)) or ("",)
    number = {label: index for index, label in enumerate(every)}
    table = [[ABSTAINED if vote is None else number[vote] for vote in column] for column in columns.values()]
    return Votes(tuple(columns), every, np.asarray(table, dtype=np.int64).T)
