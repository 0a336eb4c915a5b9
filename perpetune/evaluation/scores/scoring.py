"""The scoring of a task, the same in evaluation, checks, trials and replay."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from perpetune.evaluation.scores.json_metrics import is_valid, object_match, slot_f1
from perpetune.evaluation.scores.text_metrics import TEXT_METRICS, same_label, tidy
from perpetune.evaluation.systems import Kind
from perpetune.output_schema import OutputSchema, Schema
from perpetune.records import Example
from perpetune.tool_calls import same_calls

Metric = Callable[[str, str], float]
"""Maps the expected output and the answer to a score from 0 (wrong) to 1 (right)."""


@dataclass(frozen=True)
class Scoring:
    """The metrics of a row by name; `main` is the name of its score."""

    main: str
    metrics: Mapping[str, Metric]

    def score(self, expected: str, answer: str) -> float:
        return self.metrics[self.main](expected, answer)

    def score_row(self, row: Example, answer: str) -> float:
        return self.best(self.main, row, answer)

    def best(self, name: str, row: Example, answer: str) -> float:
        """The metric against the best of the row's correct outputs; whether the calls are the same if they are calls."""
        if row.answers_with == "tool_calls":
            return max(same_calls(expected, answer) for expected in row.right_outputs)
        return max(self.metrics[name](expected, answer) for expected in row.right_outputs)


def scoring_of(kind: Kind, schema: Schema | None) -> Scoring:
    """Accuracy for labels, slot F1 for outputs with a schema, token F1 for other free text."""
    if kind == "classification":
        return Scoring("accuracy", {"accuracy": same_label})
    if schema is None:
        return Scoring("token_f1", TEXT_METRICS)
    form = OutputSchema(schema)
    return Scoring(
        "slot_f1",
        {
            "slot_f1": partial(slot_f1, schema=form),
            "object_match": partial(object_match, schema=form),
            "valid_rate": lambda _, answer: is_valid(answer, form),
        },
    )


def credited_label(row: Example, answer: str) -> str:
    """The expected label for an answer: the answer itself if it is correct, else the row's output."""
    return tidy(answer if any(same_label(label, answer) for label in row.right_outputs) else row.output)
