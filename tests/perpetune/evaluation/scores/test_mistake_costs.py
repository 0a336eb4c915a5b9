from __future__ import annotations

import pytest

from perpetune.evaluation.scores.mistake_costs import MistakeCosts
from perpetune.records import Example

COSTS = MistakeCosts({"fraud": {"*": 50, "unsure": 5}, "legitimate": {"fraud": 2}})


def row(output: str, *others: str) -> Example:
    return Example(input="?", output=output, references=others, id="1", group="1", source="t")


@pytest.mark.parametrize(
    ("right", "answer", "cost"),
    [
        ("fraud", "fraud", 0),
        ("fraud", " Fraud ", 0),
        ("fraud", "legitimate", 50),
        ("fraud", "unsure", 5),
        ("fraud", "what?", 50),
        ("legitimate", "fraud", 2),
        ("legitimate", "unsure", 1),
        ("unsure", "fraud", 1),
    ],
)
def test_what_is_not_named_costs_one(right: str, answer: str, cost: float) -> None:
    assert COSTS.of(right, answer) == cost
    assert COSTS.score(right, answer) == 1 - cost / 50


def test_the_worst_answer_of_a_row() -> None:
    assert [COSTS.worst(row(label)) for label in ("fraud", "legitimate", "unsure")] == [50, 2, 1]


def test_costs_below_one_are_measured_against_one() -> None:
    assert MistakeCosts({"spam": {"*": 0.2}}).largest == 1
