from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from math import ceil
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perpetune.monitoring.label_sampling import Candidate, candidates, choose
from perpetune.monitoring.window import Window
from perpetune.records import Example, Prediction


def some(number: int, uncertainty: float = 0.5, label: str | None = None, text: str | None = None) -> Candidate:
    return Candidate(f"request-{number}", text or f"question {number}", label, uncertainty)


ROWS = st.lists(
    st.tuples(st.sampled_from("abcdefgh"), st.sampled_from(["good", "bad", "mixed", None]), st.floats(0, 1)),
    max_size=60,
).map(lambda rows: [some(number, uncertainty, label, text) for number, (text, label, uncertainty) in enumerate(rows)])
SHARES = st.floats(0.01, 1)


@given(rows=ROWS, count=st.integers(0, 40), share=SHARES, seed=st.integers(), data=st.data())
def test_the_order_of_the_rows_decides_nothing(
    rows: list[Candidate], count: int, share: float, seed: int, data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(rows))
    assert choose(shuffled, (), count, share, seed) == choose(rows, (), count, share, seed)


@given(rows=ROWS, count=st.integers(0, 40), share=SHARES, seed=st.integers(), data=st.data())
def test_nothing_labelled_is_asked_for_and_nothing_twice(
    rows: list[Candidate], count: int, share: float, seed: int, data: st.DataObject
) -> None:
    labelled = {row.request_id for row in rows if data.draw(st.booleans())}
    chosen = [request_id for request_id, _ in choose(rows, labelled, count, share, seed)]
    assert len(set(chosen)) == len(chosen) <= count
    assert not labelled & set(chosen)


@given(rows=ROWS, share=st.floats(0.01, 0.99) | st.just(1.0), seed=st.integers())
def test_if_both_parts_are_larger_than_what_there_is_all_of_it_is_chosen(
    rows: list[Candidate], share: float, seed: int
) -> None:
    smaller_part = min(share, 1 - share) or 1
    assert len(choose(rows, (), ceil((len(rows) + 1) / smaller_part), share, seed)) == len(rows)


def test_requests_outside_the_random_sample_stay_out_if_no_uncertain_ones_are_wanted() -> None:
    rows = [some(number, uncertainty=0.5) for number in range(200)]
    chosen = choose(rows, (), 50, 0.995, 0)
    assert {reason for _, reason in chosen} == {"lot"}
    assert len(chosen) == 50
    assert len(choose(rows, (), 99_999, 0.9, 0)) == 200


@given(rows=ROWS, seed=st.integers(), data=st.data())
def test_doubt_has_no_say_in_what_is_drawn_by_chance(rows: list[Candidate], seed: int, data: st.DataObject) -> None:
    others = [replace(row, uncertainty=data.draw(st.floats(0, 1))) for row in rows]

    def drawn(rows: list[Candidate]) -> list[str]:
        return [request_id for request_id, why in choose(rows, (), 10, 0.4, seed) if why == "lot"]

    assert drawn(others) == drawn(rows)


@given(rows=ROWS, seed=st.integers())
def test_what_doubt_chose_before_leaves_the_draw_as_it_is(rows: list[Candidate], seed: int) -> None:
    first = choose(rows, (), 20, 0.4, seed)
    uncertain = {request_id for request_id, why in first if why == "doubt"}
    again = choose(rows, uncertain, 20, 0.4, seed)
    random = [request_id for request_id, why in first if why == "lot"]
    assert [request_id for request_id, why in again if why == "lot"][: len(random)] == random


@pytest.mark.slow
def test_every_request_is_as_likely_to_be_drawn() -> None:
    rows = [some(number, uncertainty=number / 100) for number in range(100)]
    drawn = Counter(
        request_id for seed in range(2000) for request_id, why in choose(rows, (), 25, 0.4, seed) if why == "lot"
    )
    assert len(drawn) == 100
    assert all(140 < times < 260 for times in drawn.values()), "10 of 100, 2,000 times"


def test_the_most_doubtful_are_chosen() -> None:
    rows = [some(number, uncertainty=number / 200) for number in range(200)]
    chosen = dict(choose(rows, (), 50, 0.4, 0))
    uncertain = [int(request_id.split("-")[1]) for request_id, why in chosen.items() if why == "doubt"]
    assert Counter(chosen.values()) == {"lot": 20, "doubt": 30}
    assert min(uncertain) > 100


def test_likes_and_one_label_do_not_crowd_out_the_rest() -> None:
    same = [some(number, 0.9, "good", f"THE  same{' ' * number}") for number in range(50)]
    doubtful = [some(100 + number, 0.8, "good") for number in range(50)]
    sure = [some(200 + number, 0.1, label) for label in ("bad", "mixed") for number in range(number_of(label), 60)]
    texts = {row.request_id: row for row in (*same, *doubtful, *sure)}
    picked = [texts[name] for name, why in choose(list(texts.values()), (), 30, 0.01, 3) if why == "doubt"]
    assert sum(row in same for row in picked) == 1
    assert Counter(row.label == "good" for row in picked) == {True: 20, False: 10}


def number_of(label: str) -> int:
    return {"bad": 0, "mixed": 30}[label]


@pytest.mark.parametrize("kind", ["classification", "generation"])
def test_doubt_is_low_confidence_or_else_strange_words(kind: Literal["classification", "generation"]) -> None:
    values: dict[str, Any] = {
        "task": "t",
        "version": "1",
        "messages": (),
        "prompt_tokens": 1,
        "completion_tokens": 1,
        "latency_ms": 1,
    }

    def answered(text: str, confidence: float | None) -> Prediction:
        time = datetime(2024, 5, 1, tzinfo=UTC)
        return Prediction(id=text, time=time, input=text, output=" yes ", confidence=confidence, **values)

    reference = [Example(input="a plain question", output="yes", id="1", group="1", source="s")]
    window = Window([answered("a strange question", None), answered("any", 0.75)], reference, {}, kind)
    found = candidates(window)
    assert [row.uncertainty for row in found] == pytest.approx([1 / 3, 0.25])
    assert {row.label for row in found} == {"yes" if kind == "classification" else None}
