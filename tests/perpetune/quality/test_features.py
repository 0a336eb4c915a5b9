"""Features are TF-IDF if there is no encoder, and say why."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from perpetune.params import BaseParams
from perpetune.quality.features import TFIDF, features_of, tfidf_vectors

TEXTS = ["where is my card", "where is my new card", "the parcel is late", "a late parcel again"]


@pytest.mark.parametrize(
    ("encoder", "why"),
    [
        (None, "by TF-IDF, since evaluate.encoder is null"),
        (BaseParams(model="pypi:no-such-encoder", revision="1"), "is not on this machine (`perpetune download`)"),
        (BaseParams(model="path:/nowhere"), "is not a model"),
    ],
)
def test_without_an_encoder_there_is_tfidf(tmp_path: Path, encoder: BaseParams | None, why: str) -> None:
    found = features_of(TEXTS, encoder, tmp_path / "assets", tmp_path / "home")
    assert found.name == TFIDF and why in found.note
    assert not (tmp_path / "assets").exists(), "curation fetches nothing"


def test_tfidf_puts_like_texts_together_at_length_one() -> None:
    vectors = tfidf_vectors(TEXTS)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    likeness = vectors @ vectors.T
    assert likeness[0, 1] > 0.5 > likeness[0, 2]


@pytest.mark.parametrize("texts", [[], [""], ["one"], ["", "  "], ["one", "two"], ["?", "!"]])
def test_few_or_empty_texts_have_features_too(texts: list[str]) -> None:
    vectors = tfidf_vectors(texts)
    assert len(vectors) == len(texts) and np.isfinite(vectors).all()
