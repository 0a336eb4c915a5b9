from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perpetune.evaluation.evaluate import evaluate
from perpetune.evaluation.report.report import write_report
from perpetune.evaluation.scores.json_metrics import is_valid, object_match, slot_f1
from perpetune.evaluation.scores.scoring import scoring_of
from perpetune.generation.answer import Answer
from perpetune.output_schema import OutputSchema
from perpetune.params import EvaluateParams
from perpetune.records import Example

ANY = OutputSchema({"type": "object"})
ORDER = {
    "type": "object",
    "properties": {"size": {"enum": ["small", "large"]}, "items": {"type": "array", "items": {"type": "string"}}},
    "required": ["size"],
    "additionalProperties": False,
}


def f1(expected: object, answer: object) -> float:
    return slot_f1(json.dumps(expected), json.dumps(answer), ANY)


@pytest.mark.parametrize(
    ("expected", "answer", "score"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, 1),
        ({"a": 1, "b": 2}, {"a": 1, "b": 3}, 0.5),
        ({"a": 1, "b": 2}, {"a": 1}, 2 / 3),
        ({"a": 1}, {"a": 1, "b": 2, "c": 3}, 0.5),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}}, 0.5),
        ({"a": {"b": 1}}, {"b": 1}, 0),
        ({"a": ["x", "y", "y"]}, {"a": ["y", "x", "y"]}, 1),
        ({"a": ["x", "y", "y"]}, {"a": ["y", "x"]}, 0.8),
        ({"a": [{"n": 1, "m": 2}, {"n": 3, "m": 4}]}, {"a": [{"n": 3, "m": 4}, {"n": 1, "m": 5}]}, 0.75),
        ({"a": [{"n": 1, "m": 2}, {"n": 3, "m": 4}]}, {"a": [{"n": 1, "m": 4}, {"n": 3, "m": 2}]}, 0.5),
        ({"a": []}, {"a": []}, 1),
        ({"a": []}, {}, 0),
        ({"a": []}, {"a": {}}, 0),
        ({}, {}, 1),
        ({"a": " Blue\n Spice "}, {"a": "Blue Spice"}, 1),
        ({"a": "cafe\u0301"}, {"a": "café"}, 1),
        ({"a": "Blue"}, {"a": "blue"}, 0),
        ({"a": 1}, {"a": 1.0}, 1),
        ({"a": 1}, {"a": True}, 0),
        ({"a": "1"}, {"a": 1}, 0),
        ({"a": None}, {"a": False}, 0),
    ],
)
def test_slots_that_both_share_count(expected: object, answer: object, score: float) -> None:
    assert f1(expected, answer) == pytest.approx(score)
    assert f1(answer, expected) == pytest.approx(score)
    assert object_match(json.dumps(expected), json.dumps(answer), ANY) == (score == 1)


@pytest.mark.parametrize("answer", ['{"size": "small"', '{"size": "huge"}', '{"size": "small", "x": 1}', "small", ""])
def test_an_invalid_answer_scores_nothing(answer: str) -> None:
    order = OutputSchema(ORDER)
    assert slot_f1('{"size": "small"}', answer, order) == is_valid(answer, order) == 0
    assert slot_f1('{"size": "small"}', '{"size":"small"}', order) == 1


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["a", "b", "B"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.sampled_from("abc"), VALUES, max_size=3)


def plain(value: Any) -> Any:
    """The value with lists in one order and types told apart."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    return sorted(map(repr, map(plain, value))) if isinstance(value, list) else repr(value)


def reversed_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: reversed_keys(value[key]) for key in reversed(value)}
    return [reversed_keys(inner) for inner in reversed(value)] if isinstance(value, list) else value


def in_key_order(value: Any) -> Any:
    return json.loads(json.dumps(value, sort_keys=True))


@given(OBJECTS, OBJECTS)
@settings(max_examples=400, deadline=None)
def test_slot_f1_is_1_for_equal_objects_alone(one: Any, other: Any) -> None:
    one, other = in_key_order(one), in_key_order(other)
    assert (f1(one, other) == 1) == (plain(one) == plain(other))
    assert 0 <= f1(one, other) <= 1
    assert f1(one, other) == f1(other, one) == f1(reversed_keys(one), other) == f1(one, reversed_keys(other))
    assert f1(one, reversed_keys(one)) == 1


def test_a_task_with_a_schema_is_scored_by_slot_f1(
    examples: Callable[[Sequence[tuple[str, str]]], list[Example]],
    say: Callable[..., Answer],
    params: EvaluateParams,
    tmp_path: Any,
) -> None:
    rows = examples([(f"number {n}", '{"size": "small", "items": ["tea"]}') for n in range(20)])
    good = [say('{"size":"small","items":["tea"]}') for _ in rows]
    half = [say('{"size": "small", "items": ["milk"]}') for _ in rows[:10]] + [
        say('{"size": "small') for _ in rows[10:]
    ]
    found = evaluate(rows, {"challenger": good, "base": half}, rows, "generation", params, ORDER)

    assert found.main_metric == "slot_f1"
    assert set(found.metrics["base"]) == {"slot_f1", "object_match", "valid_rate"}
    assert {name: found.metrics["base"][name].value for name in found.metrics["base"]} == pytest.approx(
        {"slot_f1": 0.25, "object_match": 0, "valid_rate": 0.5}
    )
    assert found.metrics["challenger"]["object_match"].value == 1
    assert found.flat_metrics("frozen")["frozen/base/valid_rate"] == 0.5
    assert found.summary[0].startswith("The challenger has a slot F1 of 1.000 on 20 rows")
    write_report(tmp_path / "report.html", {"frozen": found}, task="orders", version="version 1")
    page = (tmp_path / "report.html").read_text()
    assert "Slot F1" in page
    assert "oken F1" not in page


def test_the_best_of_several_right_outputs_counts(
    examples: Callable[[Sequence[tuple[str, str]]], list[Example]], say: Callable[..., Answer], params: EvaluateParams
) -> None:
    rows = [row.model_copy(update={"references": ("two days",)}) for row in examples([("how long", "48 hours")] * 3)]
    found = evaluate(rows, {"base": [say("two days")] * 3}, rows, "generation", params)
    assert {found.metrics["base"][name].value for name in ("token_f1", "exact_match", "rouge_l")} == {1}

    labelled = [
        row.model_copy(update={"references": ("mixed",)})
        for row in examples([("a", "good"), ("b", "bad"), ("c", "bad")])
    ]
    sure = {"mixed": 0.75, "good": 0.25}
    found = evaluate(
        labelled, {"base": [say("mixed", sure), say("good", sure), say("bad")]}, [], "classification", params
    )
    assert found.metrics["base"]["accuracy"].value == pytest.approx(2 / 3)
    assert found.scored["base"].scores == (1, 0, 1)
    assert found.credited_labels("base") == ["mixed", "bad", "bad"]
    assert list(found.confusion_table("base")["expected"]) == ["bad"]
    assert not any("cannot answer" in sentence for sentence in found.summary)


def test_the_task_picks_the_score() -> None:
    assert scoring_of("classification", None).score("Good ", "good") == 1
    assert scoring_of("generation", None).score('{"size": "small"}', '{"size": "large"}') == pytest.approx(0.5)
    assert scoring_of("generation", ORDER).score('{"size": "small"}', '{"size": "large"}') == 0
