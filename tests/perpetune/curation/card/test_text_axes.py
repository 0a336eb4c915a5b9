from __future__ import annotations

import numpy as np
import pytest
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from perpetune.curation.card.pictures.text_axes import principal_plane, text_axes

SENTENCES = [
    f"{opening} {thing} {ending} {number % 7}"
    for opening in ("Hello, my", "Please help: the", "Since Monday our", "What about the")
    for number, thing in enumerate(("invoice", "refund", "card payment", "receipt", "screen", "keyboard", "battery"))
    for ending in ("is wrong", "never came", "is not right any more")
]
PIECES = [f"{kind}{number:03}" for kind in ("arrival", "delivery", "refund") for number in range(20)]


@pytest.mark.parametrize(
    ("texts", "vectorizer"),
    [
        (SENTENCES, TfidfVectorizer(sublinear_tf=True, min_df=2)),
        (PIECES, TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4))),
    ],
    ids=["words", "pieces of words"],
)
def test_the_plane_is_that_of_scikit_learn(texts: list[str], vectorizer: TfidfVectorizer) -> None:
    axes = text_axes(texts, 8)
    assert axes is not None and axes.shape == (len(texts), 8)
    found = principal_plane(axes)
    expected = PCA(2).fit_transform(
        TruncatedSVD(8, algorithm="arpack", random_state=0).fit_transform(vectorizer.fit_transform(texts))
    )
    assert distances(found) == pytest.approx(distances(expected), abs=0.02)


def distances(points: np.ndarray) -> np.ndarray:
    return np.asarray(np.linalg.norm(points[:, None] - points[None], axis=2)).ravel()


def test_texts_without_two_axes_have_none() -> None:
    assert text_axes(["?", "!"], 8) is None
    assert text_axes([""] * 9, 8) is None
