from __future__ import annotations

import numpy as np
import pytest

from perpetune.monitoring.input_change import as_html, input_change
from perpetune.monitoring.input_drift import InputRow, compare_inputs


def rows(texts: list[str], name: str, vectors: np.ndarray | None = None) -> list[InputRow]:
    return [
        InputRow(f"{name}{number}", text, f"{name}{number}", vector=None if vectors is None else vectors[number])
        for number, text in enumerate(texts)
    ]


OLD = rows([f"my card number {number} has not arrived" for number in range(60)], "old")
NEW = rows(
    [f"my card number {number} has not arrived" for number in range(50, 80)]
    + [f"which cryptocurrency can I buy, number {number + 900}" for number in range(10)],
    "new",
)


def test_the_farthest_requests_and_the_new_words_are_named() -> None:
    found = input_change(NEW, OLD)
    assert all("cryptocurrency" in each.request.text for each in found.farthest)
    assert next(each for each in found.words if each.word == "buy").examples == 0
    assert {"cryptocurrency", "buy"} <= {each.word for each in found.words}
    assert "number" not in {each.word for each in found.words}


def test_texts_are_shown_only_if_they_may_be_and_are_no_markup() -> None:
    strange = [*NEW, *rows(["<b>what</b> & why"], "odd")]
    page = as_html(input_change(strange, OLD), with_texts=True)
    assert "&lt;b&gt;what&lt;/b&gt; &amp; why" in page and "<b>what" not in page
    ids = as_html(input_change(strange, OLD), with_texts=False)
    assert "odd0" in ids and "what" not in ids


@pytest.mark.parametrize(("new", "old"), [([], OLD), (NEW, []), (rows(["", "?"], "n"), rows(["", "!"], "o"))])
def test_nothing_to_compare_is_no_change(new: list[InputRow], old: list[InputRow]) -> None:
    assert input_change(new, old).words == ()
    assert not compare_inputs(new, old).drifted


def unit(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


@pytest.mark.slow
def test_a_topic_in_a_tenth_of_the_requests_is_found_by_embeddings_alone() -> None:
    """Texts of random words, so that only the embeddings can tell the new topic."""
    chance = np.random.default_rng(3)
    texts = ["".join(map(chr, chance.integers(97, 123, 12))) for _ in range(900)]
    vectors = chance.normal(size=(900, 32))
    vectors[840:] = vectors[840:] * 0.5 + 3 * np.eye(32)[0]
    all_rows = rows(texts, "r", unit(vectors))
    found = compare_inputs(all_rows[600:], all_rows[:600])
    assert found.drifted and found.own_neighbours is not None and found.own_by_chance is not None
    assert found.own_neighbours > found.own_by_chance + 0.05
    assert not compare_inputs(all_rows[300:600], all_rows[:300]).drifted
    without = [InputRow(row.id, row.text, row.cluster) for row in all_rows]
    assert not compare_inputs(without[600:], without[:600]).drifted


def test_near_duplicates_of_unknown_users_are_one_observation() -> None:
    vectors = unit(np.random.default_rng(1).normal(size=(100, 16)))
    copies = np.concatenate([vectors[:60], np.repeat(vectors[:1], 40, axis=0)])
    some = rows([f"text {number}" for number in range(100)], "a", copies)
    others = rows([f"text {number}" for number in range(100)], "b", vectors)
    assert compare_inputs(some, others).rows == 60
    users = [InputRow(row.id, row.text, row.cluster, True, row.vector) for row in some]
    assert compare_inputs(users, others).rows == 100, "users who say the same are several"
