from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from perpetune.evaluation.scores.label_metrics import accuracy, confusion, label_table, macro_f1, unknown_labels

QUICK = settings(max_examples=40, deadline=None)
SETTINGS: dict[str, Any] = {"confidence": 0.95, "samples": 200, "seed": 1}
WANTED = ["good", "good", "bad", "bad", "bad", "mixed"]
ANSWERS = ["good", "bad", "bad", "bad", "good", "good"]
pairs = st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("abcde")), min_size=1, max_size=60)


def test_accuracy_by_hand() -> None:
    assert accuracy(WANTED, ANSWERS, confidence=0.95).value == 0.5


def test_macro_f1_by_hand() -> None:
    # good: 1 hit, 2 wanted, 3 answered; bad: 2 hits, 3 wanted, 3 answered; mixed: none.
    assert macro_f1(WANTED, ANSWERS, **SETTINGS).value == pytest.approx((2 / 5 + 4 / 6 + 0) / 3)


def columns(rows: list[tuple[str, str]]) -> tuple[list[str], list[str]]:
    return [wanted for wanted, _ in rows], [answer for _, answer in rows]


@QUICK
@given(pairs)
def test_macro_f1_is_scikit_learns_over_the_wanted_labels(rows: list[tuple[str, str]]) -> None:
    wanted, answers = columns(rows)
    known = f1_score(wanted, answers, labels=sorted(set(wanted)), average="macro", zero_division=0)
    estimate = macro_f1(wanted, answers, **SETTINGS)
    assert estimate.value == pytest.approx(known)
    assert estimate.low <= estimate.value <= estimate.high


def test_the_label_table_shows_labels_that_the_system_cannot_answer() -> None:
    table = label_table(WANTED, ANSWERS, known={"good", "bad"}).set_index("label")
    assert list(table.index) == ["bad", "good", "mixed"]
    good, mixed = (table.to_dict("index")[label] for label in ("good", "mixed"))
    assert (good["precision"], good["recall"], good["support"]) == pytest.approx((1 / 3, 1 / 2, 2))
    assert (mixed["recall"], mixed["f1"], mixed["answered"]) == (0, 0, 0)
    assert table["known"].to_dict() == {"bad": True, "good": True, "mixed": False}
    assert unknown_labels(WANTED, {"good", "bad"}) == {"mixed": 1}


def test_confusion_counts_wanted_by_answered() -> None:
    matrix = confusion(WANTED, ANSWERS)
    assert matrix.labels == ("bad", "good", "mixed")
    assert matrix.counts.tolist() == [[2, 1, 0], [1, 1, 0], [0, 1, 0]]


def test_a_perfect_score_keeps_an_honest_interval() -> None:
    assert macro_f1(["a", "b"] * 10, ["a", "b"] * 10, **SETTINGS).low < 0.9
