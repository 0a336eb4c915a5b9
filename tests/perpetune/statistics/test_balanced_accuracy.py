from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from perpetune.statistics.balanced_accuracy import balanced_mean, compare_balanced, strata
from perpetune.statistics.imbalance import is_imbalanced
from perpetune.statistics.paired import PairedComparison, compare

HOW: dict[str, Any] = {"confidence": 0.95, "samples": 2000, "seed": 3}


@pytest.mark.parametrize(
    ("counts", "imbalanced"),
    [
        ({"ham": 87, "spam": 13}, True),
        ({"good": 60, "bad": 40}, False),
        ({f"intent {n}": 12 for n in range(27)}, False),
        ({f"intent {n}": 12 for n in range(27)} | {"rare": 5}, True),
        ({"only": 9}, False),
    ],
)
def test_a_label_is_rare_beside_an_even_share(counts: dict[str, int], imbalanced: bool) -> None:
    assert is_imbalanced(counts) == imbalanced


def test_labels_of_a_few_rows_count_together() -> None:
    labels = ["ham"] * 60 + ["spam"] * 11 + ["a"] * 6 + ["b"] * 5
    assert strata(labels) == ["ham"] * 60 + ["spam"] * 11 + [""] * 11
    assert strata(labels[:-3]) == ["ham"] * 60 + ["spam"] * 19, "and with the rarest if they are too few together"


def test_the_majority_answer_scores_a_half() -> None:
    assert balanced_mean(["ham"] * 63 + ["spam"] * 11, [1.0] * 63 + [0.0] * 11) == 0.5


def test_a_gain_on_the_frequent_label_can_be_a_balanced_loss() -> None:
    labels = ["ham"] * 100 + ["spam"] * 20
    a = [1.0] * 90 + [0.0] * 10 + [1.0] * 20
    b = [1.0] * 100 + [0.0] * 8 + [1.0] * 12
    assert compare(a, b, **HOW).difference > 0
    found = compare_balanced(labels, a, b, **HOW)
    assert found.difference == pytest.approx((0.1 - 0.4) / 2)
    assert found.high < 0 and found.p_value > 0.9


def test_few_equal_rows_of_a_label_leave_uncertainty() -> None:
    labels, alike = ["ham"] * 300 + ["spam"] * 11, [1.0] * 311
    found = compare_balanced(labels, alike, alike, **HOW)
    assert found.difference == 0 and found.p_value == 1
    assert found.low < -0.1 < 0.1 < found.high


def test_with_as_many_rows_of_each_it_is_the_plain_comparison() -> None:
    rng = np.random.default_rng(5)
    labels = ["a", "b"] * 100
    a, b = ((rng.random(200) < share).astype(float).tolist() for share in (0.7, 0.8))
    plain, found = compare(a, b, **HOW), compare_balanced(labels, a, b, **HOW)
    assert found.difference == pytest.approx(plain.difference)
    assert found.discordance == pytest.approx(plain.discordance)
    assert found.p_value == pytest.approx(plain.p_value, abs=0.03)
    assert (found.low, found.high) == pytest.approx((plain.low, plain.high), abs=0.02)


def test_its_errors_are_as_stated() -> None:
    """A model beside itself: 400 simulations, 13% of the rows of a rare label, two answers that differ by chance."""
    rng = np.random.default_rng(11)
    labels = ["ham"] * 130 + ["spam"] * 20
    chance = np.where(np.array(labels) == "ham", 0.9, 0.6)
    found: list[PairedComparison] = []
    for _ in range(400):
        a, b = ((rng.random(150) < chance).astype(float).tolist() for _ in range(2))
        found.append(compare_balanced(labels, a, b, confidence=0.95, samples=400, seed=1))
    assert np.mean([one.p_value < 0.05 for one in found]) < 0.05 + 2 * 0.011
    assert np.mean([one.low <= 0 <= one.high for one in found]) > 0.95 - 2 * 0.011
