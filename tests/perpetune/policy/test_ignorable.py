"""Unasked labels decide only if they are shown to be like those by lot."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from perpetune.policy.ignorable import SelectionRow, ignorable

MARGIN = 0.05


def simulated(
    rng: np.random.Generator, rows: int, right_rate: float, wrong_rate: float, lot: float = 0.0, shift: float = 0.0
) -> list[SelectionRow]:
    """Answers that are right in 85%, labelled unasked at these rates, and a `lot` of the others."""
    right = rng.random(rows) < 0.85
    confidence = np.where(right, rng.beta(8, 2, rows), rng.beta(5, 4, rows)) + shift
    unasked = rng.random(rows) < np.where(right, right_rate, wrong_rate)
    drawn = ~unasked & (rng.random(rows) < lot)
    # A lot draws labelled requests too: they are not asked for, and count with it.
    also = unasked & (rng.random(rows) < lot)
    return [
        SelectionRow(
            confidence=float(sure),
            score=float(good) if came or asked else None,
            unasked=bool(came),
            weight=1.0 if asked or both else None,
        )
        for sure, good, came, asked, both in zip(confidence, right, unasked, drawn, also, strict=True)
    ]


def decided(ratio: Sequence[bool]) -> float:
    return float(np.mean(ratio))


@pytest.mark.parametrize("times", [2, 3])
@pytest.mark.parametrize("lot", [0.0, 0.05])
def test_complaints_decide_next_to_never(times: int, lot: float) -> None:
    rng = np.random.default_rng(times)
    found = [ignorable(simulated(rng, 1000, 0.1, 0.1 * times, lot), MARGIN, "test") for _ in range(100)]
    assert decided([each.decides for each in found]) <= 0.05


def test_all_or_nearly_all_labels_decide_at_once() -> None:
    rng = np.random.default_rng(1)
    assert all(ignorable(simulated(rng, 60, 1.0, 1.0), MARGIN, "test").decides for _ in range(50))
    found = ignorable(simulated(rng, 500, 0.985, 0.985), MARGIN, "test")
    assert found.decides and found.reason.endswith("500 requests are labelled")


@pytest.mark.slow
def test_a_random_part_decides_once_there_is_enough_of_it() -> None:
    rng = np.random.default_rng(2)
    found = [ignorable(simulated(rng, 12_000, 0.5, 0.5), MARGIN, "test") for _ in range(12)]
    assert decided([each.decides for each in found]) >= 0.8
    few = [ignorable(simulated(rng, 200, 0.1, 0.1), MARGIN, "test") for _ in range(40)]
    assert decided([each.decides for each in few]) <= 0.05, "what is not shown is not so"


def test_labels_by_lot_alone_can_show_it() -> None:
    rng = np.random.default_rng(3)
    rows = [
        SelectionRow(confidence=None, score=float(good), unasked=number % 2 == 0, weight=1.0 if number % 2 else None)
        for number, good in enumerate(rng.random(8000) < 0.85)
    ]
    nobody = [SelectionRow(None, None, unasked=False)] * 8000
    assert ignorable([*rows, *nobody], MARGIN, "test").decides
    assert not ignorable([*rows[:200], *nobody], MARGIN, "test").decides


def test_labels_by_lot_outvote_confidence() -> None:
    """A user whose answers are worse at the same confidence."""
    rng = np.random.default_rng(4)
    rows = simulated(rng, 3000, 0.5, 0.5)
    lot = [SelectionRow(0.8, 1.0, unasked=False, weight=1.0) for _ in range(400)]
    found = ignorable([*rows, *lot], MARGIN, "test")
    assert not found.decides and "lower" in found.reason and "than labels by lot" in found.reason


@pytest.mark.parametrize(("setting", "decides"), [("trust", True), ("ignore", False)])
def test_a_setting_says_so(setting: str, decides: bool) -> None:
    rows = [SelectionRow(None, 1.0, unasked=True), SelectionRow(None, None, unasked=False)]
    found = ignorable(rows, MARGIN, setting)  # type: ignore[arg-type]
    assert (found.decides, found.reason, found.unasked) == (decides, f"watch.unasked is {setting}", 1)


def test_without_unasked_labels_there_is_nothing_to_say() -> None:
    found = ignorable([SelectionRow(0.5, 1.0, unasked=False, weight=1.0)], MARGIN, "test")
    assert not found.decides and found.sentences() == ()


def test_labels_of_young_requests_wait() -> None:
    rows = [SelectionRow(0.5, 1.0, unasked=True, settled=False), SelectionRow(0.5, None, unasked=False, settled=False)]
    assert ignorable(rows, MARGIN, "test").reason == "more labels of the same time may come"


def answered(rng: np.random.Generator, rows: int, rates: dict[str, float]) -> list[SelectionRow]:
    """Two predicted labels, one right in 95% and one in 65%, each labelled unasked at its own rate; confidence knows nothing
    of which label it is.
    """
    found = []
    for answer in rng.choice(["refund", "other"], rows):
        right = rng.random() < (0.95 if answer == "refund" else 0.65)
        sure = float(rng.beta(8, 1.2) if right else rng.beta(3, 2))
        came = bool(rng.random() < rates[answer])
        found.append(SelectionRow(sure, float(right) if came else None, unasked=came, answer=str(answer)))
    return found


def test_labels_of_other_answers_than_the_rest_decide_nothing() -> None:
    """A team labels what was answered "refund": sure answers of each kind are labelled as often as doubtful ones."""
    found = ignorable(answered(np.random.default_rng(5), 4000, {"refund": 0.6, "other": 0.2}), MARGIN, "test")
    assert not found.decides and found.reason.startswith("they are of other answers than the rest")
    assert found.bias is not None and found.bias.low > 0.025, "right in 87% instead of 80%"


def test_labels_of_all_answers_alike_are_not_refused_for_their_answers() -> None:
    found = ignorable(answered(np.random.default_rng(6), 12_000, {"refund": 0.5, "other": 0.5}), MARGIN, "test")
    assert found.decides and "by confidence" in found.reason


def test_lot_and_confidence_together_may_show_what_neither_does_alone() -> None:
    rng = np.random.default_rng(8)
    found = [ignorable(simulated(rng, 9000, 0.25, 0.25, lot=0.1), MARGIN, "test") for _ in range(20)]
    both = [each for each in found if each.reason.startswith("they are like the others, by lot and by confidence")]
    assert both and all(each.decides and each.bias is not None and each.bias.within(MARGIN / 2) for each in both)
