from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perpetune.monitoring.label_sampling import MAX_WEIGHT, Candidate, candidates, draw
from perpetune.monitoring.window import Window
from perpetune.records import Example, Prediction


def some(number: int, doubt: float = 0.5, label: str | None = None, text: str | None = None) -> Candidate:
    return Candidate(f"request-{number}", text or f"question {number}", label, doubt)


ROWS = st.lists(
    st.tuples(
        st.sampled_from("abcdefgh"),
        st.sampled_from(["good", "bad", "mixed", None]),
        st.floats(0, 1),
        st.floats(0.05, 1),
        st.booleans(),
    ),
    max_size=60,
).map(
    lambda rows: [
        Candidate(f"request-{number}", text, label, doubt, undrawn, labelled)
        for number, (text, label, doubt, undrawn, labelled) in enumerate(rows)
    ]
)
RATIOS = st.floats(0.01, 1)
KEYS = st.text()


@given(rows=ROWS, count=st.integers(0, 40), ratio=RATIOS, key=KEYS, data=st.data())
def test_the_order_of_the_rows_decides_nothing(
    rows: list[Candidate], count: int, ratio: float, key: str, data: st.DataObject
) -> None:
    assert draw(data.draw(st.permutations(rows)), count, ratio, key) == draw(rows, count, ratio, key)


@given(rows=ROWS, count=st.integers(0, 40), ratio=RATIOS, key=KEYS)
def test_no_more_is_drawn_than_wanted_and_all_with_a_propensity(
    rows: list[Candidate], count: int, ratio: float, key: str
) -> None:
    lot = draw(rows, count, ratio, key)
    labelled = {row.request_id for row in rows if row.labelled}
    names = [each.request_id for each in lot.drawn]
    assert len(set(names)) == len(names)
    assert sum(name not in labelled for name in names) <= count + 1 if len(labelled) < len(rows) else True
    for each in lot.drawn:
        assert each.propensity is not None and 0 < each.propensity <= 1
        assert each.weight is not None and 0 < each.weight <= MAX_WEIGHT
    before = {row.request_id: row.undrawn for row in rows}
    assert all(0 < left <= before[name] for name, left in lot.undrawn.items())


def test_the_open_requests_are_filled_exactly() -> None:
    rows = [some(number, doubt=number % 7 / 7) for number in range(300)]
    assert {len(draw(rows, 50, 0.4, str(key)).drawn) for key in range(200)} == {50}


def test_what_is_labelled_already_takes_no_place() -> None:
    rows = [replace(some(number), labelled=number % 3 == 0) for number in range(300)]
    labelled = {row.request_id for row in rows if row.labelled}
    for key in range(50):
        names = [each.request_id for each in draw(rows, 50, 0.4, str(key)).drawn]
        assert sum(name not in labelled for name in names) == 50
        assert sum(name in labelled for name in names) in (25, 26), "at the same rate"


def test_doubt_has_its_part_and_no_more() -> None:
    rows = [some(number, doubt=0.9 if number < 30 else 0.1) for number in range(300)]
    reasons = Counter(each.why for key in range(300) for each in draw(rows, 50, 0.4, str(key)).drawn)
    assert reasons["lot"] / reasons.total() == pytest.approx(0.4, abs=0.02)
    assert {each.why for each in draw(rows, 50, 1.0, "k").drawn} == {"lot"}
    assert [each.weight for each in draw(rows, 50, 1.0, "k").drawn] == pytest.approx([1.0] * 50)


@pytest.mark.slow
def test_every_request_is_drawn_as_often_as_its_propensity_says() -> None:
    rows = [some(number, doubt=number / 60, label="ab"[number % 2]) for number in range(60)]
    drawn: Counter[str] = Counter()
    said: dict[str, float] = {}
    for key in range(3000):
        for each in draw(rows, 15, 0.3, str(key)).drawn:
            drawn[each.request_id] += 1
            assert each.propensity is not None
            said[each.request_id] = each.propensity
    assert len(said) == 60
    for name, propensity in said.items():
        assert drawn[name] / 3000 == pytest.approx(propensity, abs=4.5 * (propensity / 3000) ** 0.5)


@pytest.mark.slow
@pytest.mark.parametrize("ratio", [0.1, 0.4])
def test_weighted_scores_of_doubtful_and_labelled_ones_are_unbiased_draw_after_draw(ratio: float) -> None:
    """Doubt is high for wrong answers, wrong ones are labelled 3 times as often, and each draw leaves out the last."""
    rng = np.random.default_rng(5)
    weighted: list[float] = []
    weights: list[float] = []
    plain: list[float] = []
    truths: list[float] = []
    for trial in range(200):
        right = rng.random(300) < 0.85
        doubt = np.where(right, rng.beta(2, 6, 300), rng.beta(4, 4, 300))
        labelled = rng.random(300) < np.where(right, 0.1, 0.3)
        left = {f"request-{n}": Candidate(f"request-{n}", str(n), None, doubt[n], 1.0, labelled[n]) for n in range(300)}
        truths.append(float(right.mean()))
        for step, count, random_ratio in ((0, 50, ratio), (1, 50, ratio), (2, 100, 1.0)):
            lot = draw(list(left.values()), count, random_ratio, f"{trial} {step}")
            for each in lot.drawn:
                score = float(right[int(each.request_id.split("-")[1])])
                assert each.weight is not None
                weighted.append(each.weight * score)
                weights.append(each.weight)
                plain.append(score)
                del left[each.request_id]
            left = {name: replace(row, undrawn=lot.undrawn[name]) for name, row in left.items()}
    truth = float(np.mean(truths))
    assert sum(weighted) / sum(weights) == pytest.approx(truth, abs=0.006)
    assert abs(np.mean(plain) - truth) > 0.01, "without weights they are biased"


def test_the_most_doubtful_are_drawn_most() -> None:
    rows = [some(number, doubt=number / 200) for number in range(200)]
    found = [int(each.request_id.split("-")[1]) for key in range(50) for each in draw(rows, 50, 0.4, str(key)).drawn]
    assert np.mean(found) > 115


def test_equal_inputs_do_not_crowd_out_the_rest() -> None:
    same = [some(number, 0.9, "good", f"THE  same{' ' * number}") for number in range(50)]
    others = [some(100 + number, 0.9, "bad") for number in range(50)]
    names = {row.request_id for row in same}
    drawn = [
        each.request_id in names for key in range(100) for each in draw([*same, *others], 20, 0.01, str(key)).drawn
    ]
    assert np.mean(drawn) < 0.05


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
    found = candidates(window, {"a strange question": 1.0, "any": 0.5})
    assert [row.doubt for row in found] == pytest.approx([1 / 3, 0.25])
    assert [row.undrawn for row in found] == [1.0, 0.5]
    assert {row.label for row in found} == {"yes" if kind == "classification" else None}
    assert [row.request_id for row in candidates(window, {"any": 1.0})] == ["any"]
