"""Hard rows are those that a model of the others gets wrong or is unsure of, and without labels those far from the usual."""

from __future__ import annotations

import numpy as np
import pytest

from perpetune.curation.readers.row import example_of
from perpetune.quality.hardness import LEAST, PROTOTYPES, distance_to_prototypes, el2n, preference
from perpetune.quality.judge import Opinions


def test_the_surer_of_the_given_label_the_easier() -> None:
    rows = tuple(example_of({"input": f"row {n}", "output": "a", "id": str(n)}, "made") for n in range(3))
    probabilities = np.array([[0.9, 0.1], [0.55, 0.45], [0.0, 1.0]])
    found = el2n(Opinions(rows, ("a", "b"), np.zeros(3, dtype=np.int64), probabilities))
    assert found == pytest.approx([0.1 * 2**0.5, 0.45 * 2**0.5, 2**0.5])


def test_without_labels_rows_between_the_usual_ones_are_hard() -> None:
    rng = np.random.default_rng(1)
    usual = np.repeat(np.eye(40, dtype=np.float32)[:PROTOTYPES], 15, axis=0) + rng.normal(0, 0.02, (300, 40))
    stray = np.stack([np.eye(40)[number] + np.eye(40)[number + 1] for number in range(4)])
    vectors = np.vstack([usual, stray])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found = distance_to_prototypes(vectors.astype(np.float32))
    assert found[-4:].min() > np.quantile(found[:300], 0.9)


def test_few_rows_are_equally_hard() -> None:
    assert distance_to_prototypes(np.eye(3, dtype=np.float32)).tolist() == [0, 0, 0]


def test_preferred_rows_weigh_most_and_equal_rows_equally() -> None:
    hardness = np.array([0.1, 0.9, 0.5, 0.5])
    assert preference(hardness, "hard") == pytest.approx([LEAST, 1, (1 + LEAST) / 2, (1 + LEAST) / 2])
    assert preference(hardness, "easy") == pytest.approx([1, LEAST, (1 + LEAST) / 2, (1 + LEAST) / 2])
    assert preference(hardness, "none").tolist() == [1, 1, 1, 1]
    assert preference(np.array([]), "hard").tolist() == []
