from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perpetune.monitoring.mix_shift import Scored, decompose

SCORED = st.lists(
    st.builds(Scored, st.sampled_from("abc"), st.floats(0, 1), st.floats(0.1, 1)), min_size=1, max_size=30
)


def rows(part: str, right: int, of: int) -> list[Scored]:
    return [Scored(part, float(number < right)) for number in range(of)]


def test_more_of_what_is_hard_is_mix() -> None:
    before = [*rows("easy", 950, 1000), *rows("hard", 350, 500)]
    found = decompose("label", before, [*rows("easy", 95, 100), *rows("hard", 210, 300)])
    assert found is not None
    assert (found.by, found.grew) == ("label", "hard")
    assert found.within == pytest.approx(0.0, abs=0.005)
    assert found.mix == pytest.approx(1300 / 1500 - 305 / 400, abs=0.005)
    assert 500 < found.rows < 1500, "three in four are hard, and 500 hard ones are known"


def test_the_same_answered_worse_is_within() -> None:
    found = decompose(
        "label", [*rows("easy", 95, 100), *rows("hard", 70, 100)], [*rows("easy", 80, 100), *rows("hard", 50, 100)]
    )
    assert found is not None
    assert found.within == pytest.approx(0.175, abs=0.005)
    assert found.mix == pytest.approx(0.0, abs=0.005)


def test_a_new_label_that_is_answered_badly_is_within() -> None:
    found = decompose("label", rows("old", 90, 100), [*rows("old", 45, 50), *rows("new", 0, 50)])
    assert found is not None
    assert found.within == pytest.approx(0.45, abs=0.01)


@given(SCORED, SCORED)
def test_the_parts_add_up_to_the_fall(before: list[Scored], since: list[Scored]) -> None:
    found = decompose("label", before, since)
    assert found is not None
    then, now = (
        sum(each.weight * each.score for each in some) / sum(each.weight for each in some) for some in (before, since)
    )
    assert found.within + found.mix == pytest.approx(then - now, abs=1e-9)
    assert 0 < found.rows <= sum(each.weight for each in before) + 1e-9


def test_nothing_is_taken_apart_without_rows() -> None:
    assert decompose("label", [], rows("a", 1, 1)) is None
    assert decompose("label", rows("a", 1, 1), []) is None
