"""How well an answer does, from 0 to 1: one choice for a task, the same in evaluation, watch, trial and replay."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from perpetune.evaluation.scores.json_metrics import is_valid, object_match, slot_f1
from perpetune.evaluation.scores.text_metrics import TEXT_METRICS, same_label, tidy
from perpetune.evaluation.systems import Kind
from perpetune.output_schema import OutputSchema, Schema
from perpetune.records import Example

Metric = Callable[[str, str], float]
"""From the wanted output and the answer to 0 (wrong) ... 1 (right)."""


@dataclass(frozen=True)
class Scoring:
    """The metrics of a row by name; `main` names the one that its score is."""

    main: str
    metrics: Mapping[str, Metric]

    def score(self, wanted: str, answer: str) -> float:
        return self.metrics[self.main](wanted, answer)

    def score_row(self, row: Example, answer: str) -> float:
        return self.best(self.main, row, answer)

    def best(self, name: str, row: Example, answer: str) -> float:
        """A metric of the answer beside the row's output, or another right one that it is closer to."""
        return max(self.metrics[name](wanted, answer) for wanted in row.right_outputs)


def scoring_of(kind: Kind, schema: Schema | None) -> Scoring:
    """Right or wrong for labels, slot F1 where outputs have a schema, token F1 for other free text."""
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
    """The label that an answer is judged by: itself where it is a right one, else the row's output."""
    return tidy(answer if any(same_label(label, answer) for label in row.right_outputs) else row.output)
