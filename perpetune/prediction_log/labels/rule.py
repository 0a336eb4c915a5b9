"""Which labels of feedback count: the task's own, or any text that could be one of its answers.

A label that no answer could equal says nothing about the model. It would count as a wrong answer, and two of them would
be a class of the next training.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from sqlalchemy import JSON, ColumnElement, Connection, Text, cast, func, literal, select, true

from perpetune.curation.text import normalised, shortened
from perpetune.output_schema import InvalidOutput, OutputSchema
from perpetune.params import Params
from perpetune.prediction_log.tables import feedback

MAX_CHARS = 4000  # the default of clean.max_output_chars
_NAMED = 30  # labels that an error names
_BLANK = " \t\r\n\u00a0\u3000"


@dataclass(frozen=True)
class LabelRule:
    """`labels` are the known ones; None for free text. `others` accepts further labels too.

    `json_schema` is the JSON text of the schema that a label satisfies, and a label has at most `max_chars` characters.
    """

    labels: tuple[str, ...] | None = None
    others: bool = False
    json_schema: str | None = None
    max_chars: int = MAX_CHARS

    def fault(self, label: str) -> str | None:
        """Why the label cannot be right; None if it can."""
        if not label.strip():
            return "it is blank"
        if self._spellings and not self.others:
            return None if normalised(label) in self._spellings else self._not_among(label)
        if len(label) > self.max_chars:
            return f"it has {len(label):,} characters; the maximum is {self.max_chars:,} (clean.max_output_chars)"
        return self._violation(label)

    def spelled(self, label: str) -> str:
        """The label in the task's spelling, which may differ in case and whitespace."""
        return self._spellings.get(normalised(label), label) if self._spellings else label

    def accepted(self, connection: Connection, task: str) -> ColumnElement[bool]:
        """Whether a row of `feedback` has a label that counts. Reads the task's distinct labels if need be."""
        label = feedback.c.label
        if (not self._spellings and self.json_schema is None) or self.others:
            return label.is_not(None) & (func.trim(label, _BLANK) != "") & (func.length(label) <= self.max_chars)
        refused = [found for found in _distinct_labels(connection, task) if self.fault(found)]
        return label.is_not(None) & (label.not_in(_values(connection, refused)) if refused else true())

    @cached_property
    def _spellings(self) -> dict[str, str]:
        return {normalised(label): label for label in self.labels or ()}

    @cached_property
    def _schema(self) -> OutputSchema | None:
        return None if self.json_schema is None else OutputSchema(json.loads(self.json_schema))

    def _violation(self, label: str) -> str | None:
        try:
            if self._schema:
                self._schema.parsed(label)
        except InvalidOutput as fault:
            return f"it does not satisfy the task's output schema: {shortened(str(fault))}"
        return None

    def _not_among(self, label: str) -> str:
        known = self.labels or ()
        more = f" and {len(known) - _NAMED} more" if len(known) > _NAMED else ""
        return f"{shortened(label, 40)!r} is not one of the task's labels: {', '.join(known[:_NAMED])}{more}"


ANY_LABEL = LabelRule()


@dataclass(frozen=True)
class LabelPolicy:
    """What `params.yaml` says about labels; see `task.labels` and `task.new_labels`."""

    labels: tuple[str, ...] | None = None
    new_labels: bool = False
    max_chars: int = MAX_CHARS

    def rule(self, known: Iterable[str] | None, json_schema: str | None = None) -> LabelRule:
        """The rule of a task whose model or data have the labels `known`; None for free text.

        With fewer than two, nothing is known about the others.
        """
        found = tuple(dict.fromkeys(known or ()))
        labels = self.labels or (found if len(found) > 1 else None)
        return LabelRule(labels, self.new_labels and not self.labels, json_schema, self.max_chars)


NO_POLICY = LabelPolicy()


def policy_of(params: Params) -> LabelPolicy:
    """The label policy of these settings."""
    return LabelPolicy(params.task.labels, params.task.new_labels, params.clean.max_output_chars)


def is_score() -> ColumnElement[bool]:
    """Whether a row of `feedback` has a score that counts: from 0 to 1, and of the first answer, which is compared.

    The gateway refuses other scores, but SQL does not, and older gateways did not.
    """
    return feedback.c.score.between(0.0, 1.0) & (feedback.c.choice == 0)


def _distinct_labels(connection: Connection, task: str) -> list[str]:
    labels = select(feedback.c.label).distinct().where(feedback.c.task == task, feedback.c.label.is_not(None))
    return list(connection.execute(labels).scalars())


def _values(connection: Connection, texts: Iterable[str]) -> ColumnElement[str]:
    """A subquery of these texts. They are one parameter, because databases limit the number of parameters."""
    array = json.dumps(list(texts))
    if connection.dialect.name == "sqlite":
        return select(func.json_each(array).table_valued("value").c.value).scalar_subquery()
    return select(func.json_array_elements_text(cast(literal(array, Text), JSON)).column_valued()).scalar_subquery()
