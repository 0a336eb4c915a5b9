"""What wrong answers cost: the score of gate, trials, rollback and monitor if `promote.costs` is set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from perpetune.evaluation.scores.scoring import Metric, Scoring, scoring_of
from perpetune.evaluation.scores.text_metrics import tidy
from perpetune.params import ANY_ANSWER, Params
from perpetune.records import Example

COST_SCORE = "cost score"  # the name of the metric
UNNAMED = 1.0  # cost of a wrong answer that is not named


@dataclass(frozen=True)
class MistakeCosts:
    """The cost of each wrong answer by right label, after `promote.costs`; a right answer costs nothing."""

    by_right_label: Mapping[str, Mapping[str, float]]

    @cached_property
    def largest(self) -> float:
        """The largest cost of an answer."""
        return max([UNNAMED, *(max(row.values(), default=0.0) for row in self._rows.values())])

    @cached_property
    def _rows(self) -> dict[str, dict[str, float]]:
        return {
            _key(right): {_key(answer): cost for answer, cost in row.items()}
            for right, row in self.by_right_label.items()
        }

    def of(self, right: str, answer: str) -> float:
        """The cost of an answer to a request whose right label is `right`."""
        if _key(right) == _key(answer):
            return 0.0
        row = self._rows.get(_key(right), {})
        return row.get(_key(answer), row.get(ANY_ANSWER, UNNAMED))

    def of_row(self, row: Example, answer: str) -> float:
        """The least cost over the row's correct outputs."""
        return min(self.of(right, answer) for right in row.right_outputs)

    def worst(self, row: Example) -> float:
        """The largest cost that an answer to the row may have; that of its `output` if several are correct."""
        named = self._rows.get(_key(row.output), {})
        unnamed = named.get(ANY_ANSWER, UNNAMED)
        return max([unnamed, *(cost for answer, cost in named.items() if answer != ANY_ANSWER)])

    def score(self, right: str, answer: str) -> float:
        """1 for an answer that costs nothing, 0 for the largest cost."""
        return 1 - self.of(right, answer) / self.largest


def mistake_costs(by_right_label: Mapping[str, Mapping[str, float]] | None) -> MistakeCosts | None:
    """The costs of the setting; None if it is not set."""
    return None if by_right_label is None else MistakeCosts(by_right_label)


def gate_metric(scoring: Scoring, costs: MistakeCosts | None) -> Metric:
    """The score of an answer, as the gate counts it."""
    return scoring.score if costs is None else costs.score


def deciding_scoring(params: Params) -> Scoring:
    """The scoring by which the gate, trials, rollback and the monitor judge versions of the task."""
    costs = mistake_costs(params.promote.costs)
    return scoring_of(params.task.kind, params.task.output_schema) if costs is None else cost_scoring(costs)


def cost_scoring(costs: MistakeCosts) -> Scoring:
    """The scoring of rows by what their answers cost."""
    return Scoring(COST_SCORE, {COST_SCORE: costs.score})


def _key(label: str) -> str:
    """As `same_label` compares labels."""
    return tidy(label).casefold()
