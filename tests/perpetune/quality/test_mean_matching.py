"""The chosen rows' mean is that of all rows, and no row gives way to a poorer one."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from perpetune.quality.facility_location import facility_location
from perpetune.quality.mean_matching import with_matched_mean


def unit_rows(count: int, seed: int, size: int = 8) -> NDArray[np.float32]:
    found = np.random.default_rng(seed).normal(size=(count, size)) + np.eye(size)[0]
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True), dtype=np.float32)


def distance(vectors: NDArray[np.float32], weights: NDArray[np.float64], chosen: list[int]) -> float:
    return float(np.linalg.norm(vectors[chosen].mean(axis=0) - np.average(vectors, axis=0, weights=weights)))


@pytest.mark.parametrize("seed", range(3))
def test_no_single_exchange_would_bring_the_mean_nearer(seed: int) -> None:
    vectors, weights = unit_rows(40, seed), np.ones(40)
    chosen = with_matched_mean(vectors, weights, [0, 1, 2, 3])
    best = distance(vectors, weights, chosen)
    others = [
        [*chosen[:place], new, *chosen[place + 1 :]] for place in range(4) for new in range(40) if new not in chosen
    ]
    assert len(set(chosen)) == 4 and best < distance(vectors, weights, [0, 1, 2, 3])
    assert best <= min(distance(vectors, weights, other) for other in others) + 1e-6


def test_a_row_is_only_exchanged_for_one_of_its_weight() -> None:
    vectors = unit_rows(30, 1)
    weights = np.where(np.arange(30) < 10, 1.0, 0.05)
    chosen = with_matched_mean(vectors, weights, [0, 1, 20])
    assert sum(weights[chosen]) >= sum(weights[[0, 1, 20]]) and set(chosen) != {0, 1, 20}
    assert sum(place < 10 for place in chosen) >= 2


def test_nothing_to_exchange() -> None:
    vectors = unit_rows(3, 2)
    assert with_matched_mean(vectors, np.ones(3), []) == []
    assert with_matched_mean(vectors, np.zeros(3), [1]) == [1]
    assert sorted(with_matched_mean(vectors, np.ones(3), [2, 0, 1])) == [0, 1, 2]


def test_facility_location_stands_for_crowds_and_keeps_the_mean() -> None:
    """Nine rows of ten are one crowd and the others lie alone: three of ten chosen would be the lonely ones."""
    crowd = np.tile([1.0, 0.0, 0.0], (27, 1)) + np.random.default_rng(3).normal(scale=0.02, size=(27, 3))
    vectors = np.vstack([crowd, np.eye(3)[[1, 1, 2]]]).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    weights = np.ones(30)
    chosen = facility_location(vectors, weights, 10)
    assert len(set(chosen)) == 10 and sum(place >= 27 for place in chosen) == 1
    assert distance(vectors, weights, chosen) < 0.05
