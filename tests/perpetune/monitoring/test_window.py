from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perpetune.monitoring.window import INPUT_COLUMNS, Window, current_frame, reference_frame
from perpetune.records import Example, Prediction


def example(identity: str, text: str, output: str = "good", group: str | None = None) -> Example:
    return Example(input=text, output=output, id=identity, group=group or identity, source="test")


def prediction(text: str, output: str = "good", label: str | None = None, confidence: float | None = 0.9) -> Prediction:
    return Prediction(
        id="p",
        time=datetime(2025, 1, 1, tzinfo=UTC),
        task="reviews",
        version="1",
        messages=(),
        input=text,
        output=output,
        prompt_tokens=1,
        completion_tokens=1,
        latency_ms=1,
        confidence=confidence,
        label=label,
    )


def test_descriptors_of_inputs():
    row = current_frame(Window([prediction("Good cat, 42!")], [example("1", "a good dog")], {}, "classification")).iloc[
        0
    ]
    assert row["characters"] == 13
    assert row["words"] == 3
    assert row["mean word length"] == pytest.approx(11 / 3)
    assert row["non-letter ratio"] == pytest.approx(4 / 13)
    assert row["unseen word ratio"] == 0.5


def test_a_word_of_one_group_only_is_unseen_in_the_reference():
    reference = [example("1", "shared own", group="g"), example("2", "own", group="g"), example("3", "shared")]
    frame = reference_frame(Window([], reference, {}, "classification"))
    assert frame["unseen word ratio"].tolist() == [0.5, 1.0, 0.0]


def test_scores_need_labels_or_recorded_answers():
    window = Window(
        [prediction("a", "good", "Good "), prediction("b", "good", "bad"), prediction("c")],
        [example("1", "x", "good"), example("2", "y", "bad"), example("3", "z")],
        {"1": ("good", 0.8), "2": ("good", 0.7)},
        "classification",
    )
    assert current_frame(window)["score"].dropna().tolist() == [1.0, 0.0]
    assert reference_frame(window)["score"].dropna().tolist() == [1.0, 0.0]
    assert reference_frame(window)["confidence"].dropna().tolist() == [0.8, 0.7]


def test_free_text_answers_have_a_length_and_the_given_score():
    window = Window(
        [prediction("a", "one two", "one", None)], [example("1", "x")], {}, "generation", lambda output, wanted: 0.25
    )
    frame = current_frame(window)
    assert frame["answer length"].tolist() == [7]
    assert "answer" not in frame
    assert frame["score"].tolist() == [0.25]


@given(st.lists(st.text(max_size=40), max_size=5), st.lists(st.text(max_size=40), max_size=5))
def test_any_text_can_be_described(requests, examples):
    reference = [example(str(number), text) for number, text in enumerate(examples)]
    window = Window([prediction(text) for text in requests], reference, {}, "classification")
    for frame, texts in ((current_frame(window), requests), (reference_frame(window), examples)):
        assert len(frame) == len(texts)
        assert frame[list(INPUT_COLUMNS)].notna().all(axis=None)
        assert frame[["non-letter ratio", "unseen word ratio"]].le(1).all(axis=None)
