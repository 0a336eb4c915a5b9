"""Labels that cannot be right are in no reading of the log, however they came into it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import sqlalchemy
from label_readings import RULE, check_every_reading, written_by_hand

from perpetune.prediction_log.labels.rule import ANY_LABEL, LabelPolicy, LabelRule
from perpetune.prediction_log.queries import counts, labelled_examples, newly_labelled
from perpetune.prediction_log.writes import record_rows
from perpetune.records import Prediction

Make = Callable[..., Prediction]


@pytest.mark.parametrize(
    ("rule", "right", "wrong"),
    [
        (ANY_LABEL, ["anything", "x" * 4000], ["", " ", "\n\t", "\u3000", "x" * 4001]),
        (RULE, ["positive", " Positive ", "NEGATIVE\n"], ["", "thumbs_up", "pos", "positive negative"]),
        (LabelRule(("a", "b"), others=True), ["a", "c"], [" ", "x" * 4001]),
        (LabelRule(json_schema='{"type": "integer"}'), ["1", " 2"], ["one", "{}", " "]),
        (LabelRule(("Straße", "Café")), ["STRASSE", "Cafe\u0301"], ["Strase"]),
    ],
)
def test_what_a_rule_accepts(rule: LabelRule, right: list[str], wrong: list[str]) -> None:
    assert [rule.fault(label) for label in right] == [None] * len(right)
    assert all(rule.fault(label) for label in wrong)


def test_a_policy() -> None:
    assert LabelPolicy(("a", "b")).rule(["c", "d"]) == LabelRule(("a", "b"))
    assert LabelPolicy().rule(["c", "d", "c"]) == LabelRule(("c", "d"))
    assert LabelPolicy().rule(["c"]) == LabelPolicy().rule(None) == ANY_LABEL, "one label is not all of them"
    assert LabelPolicy(new_labels=True).rule(["c", "d"]).fault("e") is None


def test_labels_that_cannot_be_right_are_in_no_reading(log: sqlalchemy.Engine, prediction: Make) -> None:
    check_every_reading(log, prediction)


def test_a_blank_label_counts_for_no_task(log: sqlalchemy.Engine, prediction: Make) -> None:
    record_rows(log, [prediction(number) for number in range(3)])
    written_by_hand(
        log, ("chatcmpl-0", " \n", None), ("chatcmpl-1", "any text", None), ("chatcmpl-2", "x" * 4001, None)
    )
    assert [row.output for row in labelled_examples(log, "reviews")] == ["any text"]
    assert counts(log, "reviews").ignored == 2


def test_the_id_of_a_deleted_row_is_not_used_again(log: sqlalchemy.Engine, prediction: Make) -> None:
    record_rows(log, [prediction(0), prediction(1)])
    written_by_hand(log, ("chatcmpl-0", "positive", None))
    _, after = newly_labelled(log, "reviews", "1", 0)
    with log.begin() as connection:
        connection.exec_driver_sql("delete from feedback")
    written_by_hand(log, ("chatcmpl-1", "positive", None))
    new, _ = newly_labelled(log, "reviews", "1", after)
    assert [row.id for row in new] == ["chatcmpl-1"], "the monitor reads every label once"
