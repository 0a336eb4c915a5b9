"""Texts that are alike are found whether all are compared or cells, in bounded memory and less than quadratic work."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from perpetune.quality import neighbours
from perpetune.quality.embedding_cache import Vectors
from perpetune.quality.neighbours import alike


def vectors_of(count: int, size: int = 24, seed: int = 1) -> Vectors:
    """Unit vectors around a few hundred topics; every tenth is almost that before it."""
    rng = np.random.default_rng(seed)
    topics = rng.normal(size=(300, size))
    found = topics[rng.integers(0, len(topics), count)] + rng.normal(0, 0.8, (count, size))
    found[9::10] = found[8::10][: len(found[9::10])] + rng.normal(0, 0.05, found[9::10].shape)
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True), dtype=np.float32)


def test_all_pairs_are_those_of_the_similarity_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = vectors_of(400)
    expected = np.argwhere(np.triu(vectors @ vectors.T >= 0.9, 1))
    assert len(expected) >= 40
    for queries, members in ((2_000, 4_000), (64, 50)):
        monkeypatch.setattr(neighbours, "_QUERIES", queries)
        monkeypatch.setattr(neighbours, "_MEMBERS", members)
        assert alike(vectors, 0.9) == [tuple(pair) for pair in expected.tolist()]


def test_cells_find_the_pairs_of_all_comparisons() -> None:
    vectors = vectors_of(3_000)
    all_pairs, found = set(alike(vectors, 0.9)), set(alike(vectors, 0.9, exact=0))
    assert found <= all_pairs
    assert len(found) >= 0.99 * len(all_pairs) > 250
    assert alike(vectors, 0.9, exact=0) == sorted(found), "the same at every run"


@pytest.mark.parametrize("exact", [0, 10**6])
def test_of_many_that_are_alike_each_has_its_nearest(exact: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "MOST", 5)
    vectors = np.repeat(vectors_of(1), 300, axis=0)
    assert 300 * 5 / 2 <= len(alike(vectors, 0.9, exact)) <= 300 * 5


def test_memory_is_bounded() -> None:
    vectors = vectors_of(12_000, size=8)
    tracemalloc.start()
    alike(vectors, 0.999)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 80e6, "2,000 rows of similarities to all 12,000 are 96 MB"


def test_cells_are_compared_with_less_than_quadratic_work() -> None:
    def compared(count: int) -> int:
        return sum(len(queries) * len(members) for queries, members in neighbours._cells(vectors_of(count)))

    few, many = compared(1_500), compared(6_000)
    assert many / few < 4**1.65


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_texts_have_few_pairs(count: int) -> None:
    vectors = np.repeat(vectors_of(1), count, axis=0)
    assert alike(vectors, 0.9) == alike(vectors, 0.9, exact=0) == ([(0, 1)] if count == 2 else [])
