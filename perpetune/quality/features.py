"""Features of texts: embeddings of the evaluation's encoder, or TF-IDF if there is none."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from perpetune.errors import PerpetuneError
from perpetune.model.weights import must_be_fetched, resolve, weights_digest
from perpetune.params import BaseParams
from perpetune.quality.embedding_cache import EmbeddingCache, Vectors

FOLDER = "embeddings"
COMPONENTS = 256
TFIDF = "TF-IDF"
SEED = 7


@dataclass(frozen=True)
class Features:
    """Unit vectors, (texts, size), and what they are made of: the encoder's name, or TF-IDF and `why`."""

    vectors: Vectors
    name: str
    why: str = ""

    @property
    def are_embeddings(self) -> bool:
        return self.name != TFIDF

    @property
    def note(self) -> str:
        """One sentence for people if they are not what they could be, else nothing."""
        return "" if self.are_embeddings else f"by TF-IDF, since {self.why}"


NONE = Features(np.zeros((0, 1), np.float32), "nothing")


def features_of(
    texts: Sequence[str], encoder: BaseParams | None, assets: Path, home: Path, keep: Iterable[str] | None = None
) -> Features:
    """Embeddings of the texts, from the cache in `home` as far as it has them.

    Without the encoder (`evaluate.encoder: null`, or its weights are not on this machine) they are TF-IDF of these texts.
    """
    if encoder is None:
        return Features(tfidf_vectors(texts), TFIDF, "evaluate.encoder is null")
    if must_be_fetched(encoder, assets):
        return Features(tfidf_vectors(texts), TFIDF, f"{encoder.model} is not on this machine (`perpetune download`)")
    try:
        # Its weights name the cache. Torch and the encoder are loaded only if a text is new.
        cache = EmbeddingCache(home / FOLDER, weights_digest(resolve(encoder, assets, setting="evaluate.encoder")))
        return Features(cache.encode(texts, _Late(encoder, assets), keep), encoder.model)
    except PerpetuneError as fault:
        return Features(tfidf_vectors(texts), TFIDF, fault.what)


@dataclass(frozen=True)
class _Late:
    """The encoder, which is loaded when it is first asked."""

    params: BaseParams
    assets: Path

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        from perpetune.classifiers.encoder import load_encoder

        return load_encoder(self.params, self.assets).encode(texts)


def tfidf_vectors(texts: Sequence[str]) -> Vectors:
    """TF-IDF of words and word pairs and of character n-grams, reduced by a truncated SVD to unit vectors, (texts, size).

    Latent semantic analysis: Deerwester et al. 1990, Journal of the American Society for Information Science 41:391.
    """
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_union

    words = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\w+|[^\w\s]", sublinear_tf=True)
    pieces = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True, max_features=20_000)
    if not any(text.strip() for text in texts):
        return np.zeros((len(texts), 1), np.float32)
    sparse = make_union(words, pieces).fit_transform(texts)
    size = min(COMPONENTS, min(sparse.shape) - 1)
    dense = TruncatedSVD(size, random_state=SEED).fit_transform(sparse) if size > 1 else sparse.toarray()
    lengths = np.linalg.norm(dense, axis=1, keepdims=True)
    return np.asarray(dense / np.where(lengths > 0, lengths, 1), dtype=np.float32)
