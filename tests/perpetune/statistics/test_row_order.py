"""No statistic depends on the order of its rows."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perpetune.evaluation.scores.label_metrics import macro_f1
from perpetune.statistics.calibration import reliability
from perpetune.statistics.estimate import estimate_mean
from perpetune.statistics.non_inferiority import inferiority_p_value
from perpetune.statistics.paired import compare

SAMPLED: dict[str, Any] = {"confidence": 0.95, "samples": 300, "seed": 3}
GRADED, LABELS = st.floats(0, 1), st.sampled_from("abcd")
BINARY = st.sampled_from([0.0, 1.0])
Rows = list[tuple[Any, Any]]


def mean(rows: Rows) -> object:
    return estimate_mean([score for score, _ in rows], **SAMPLED)


def paired(rows: Rows) -> object:
    return compare(*columns(rows), **SAMPLED)


def p_value(rows: Rows) -> object:
    return inferiority_p_value(0.1, *columns(rows))


def accuracy_of_bins(rows: Rows) -> object:
    return [bin.accuracy for bin in reliability(*columns(rows), confidence=0.95)]


def f1(rows: Rows) -> object:
    return macro_f1(*columns(rows), **SAMPLED)


def columns(rows: Rows) -> tuple[list[Any], list[Any]]:
    return [first for first, _ in rows], [second for _, second in rows]


@pytest.mark.parametrize(
    ("statistic", "pairs"),
    [
        (mean, st.tuples(GRADED, GRADED)),
        (paired, st.tuples(GRADED, GRADED)),
        (paired, st.tuples(BINARY, BINARY)),
        (p_value, st.tuples(GRADED, GRADED)),
        (accuracy_of_bins, st.tuples(GRADED, st.booleans())),
        (f1, st.tuples(LABELS, LABELS)),
    ],
)
@settings(max_examples=40, deadline=None)
@given(data=st.data(), shuffler=st.randoms())
def test_the_order_of_rows_is_irrelevant(
    statistic: Callable[[Rows], object],
    pairs: st.SearchStrategy[tuple[Any, Any]],
    data: st.DataObject,
    shuffler: random.Random,
) -> None:
    rows = data.draw(st.lists(pairs, min_size=1, max_size=40))
    assert statistic(rows) == statistic(shuffler.sample(rows, len(rows)))
