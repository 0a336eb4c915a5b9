from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss

from perpetune.statistics.calibration import brier, calibration, reliability

QUICK = settings(max_examples=40, deadline=None)
SETTINGS: dict[str, Any] = {"confidence": 0.95, "samples": 100, "seed": 1}


def test_calibration_error_by_hand() -> None:
    # Two bins of ten: 0.9 sure and 8 right, 0.6 sure and 6 right.
    probabilities = [{"a": 0.9, "b": 0.1}] * 10 + [{"a": 0.6, "b": 0.4}] * 10
    wanted = ["a"] * 8 + ["b"] * 2 + ["a"] * 6 + ["b"] * 4
    found = calibration(wanted, ["a"] * 20, probabilities, **SETTINGS)
    assert found is not None
    assert found.error == pytest.approx(0.05)
    assert [bin.confidence for bin in found.bins] == pytest.approx([0.6, 0.9])
    assert [(bin.accuracy.value, bin.accuracy.n) for bin in found.bins] == [(0.6, 10), (0.8, 10)]


def test_bins_hold_equally_many_rows() -> None:
    bins = reliability([i / 150 for i in range(150)], [True] * 150, confidence=0.95)
    assert [bin.accuracy.n for bin in bins] == [10] * 15


rows = st.lists(st.tuples(st.sampled_from([0.3, 0.5, 0.51, 0.9, 1.0]), st.booleans()), min_size=1, max_size=80)


@QUICK
@given(rows)
def test_every_row_is_in_a_bin(pairs: list[tuple[float, bool]]) -> None:
    bins = reliability(*zip(*pairs, strict=True), confidence=0.95)
    assert sum(bin.accuracy.n for bin in bins) == len(pairs)


def test_rows_of_equal_confidence_are_never_parted() -> None:
    assert len(reliability([0.7] * 100, [True] * 70 + [False] * 30, confidence=0.95)) == 1


def test_brier_is_scikit_learns_halved() -> None:
    probabilities = [{"a": 0.7, "b": 0.2, "c": 0.1}, {"a": 0.1, "b": 0.3, "c": 0.6}]
    known = brier_score_loss(
        ["a", "b"], [list(row.values()) for row in probabilities], labels=["a", "b", "c"], scale_by_half=True
    )
    assert (brier("a", probabilities[0]) + brier("b", probabilities[1])) / 2 == pytest.approx(known)


def test_a_label_without_a_probability_counts_as_impossible() -> None:
    assert brier("new", {"a": 1.0}) == 1
    assert brier("a", {"a": 1.0}) == 0


def test_rows_without_probabilities_are_left_out() -> None:
    assert calibration(["a"], ["a"], [None], **SETTINGS) is None
    found = calibration(["a", "b"], ["a", "a"], [{"a": 1.0}, None], **SETTINGS)
    assert found is not None
    assert found.brier.n == 1
