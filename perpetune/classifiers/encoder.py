"""Sentence embeddings of unit length from a sentence-transformers model (Reimers and Gurevych 2019, arXiv:1908.10084)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin

from perpetune.errors import PerpetuneError
from perpetune.model.weights import resolve, weights_digest
from perpetune.params import BaseParams

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

SETTING = "evaluate.encoder"


@dataclass(frozen=True, eq=False)
class Encoder:
    """A loaded sentence-transformers model, with its parameters and the sha256 of its weights."""

    params: BaseParams
    digest: str
    model: SentenceTransformer

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Embeddings of shape (texts, size). Texts beyond the encoder's context are truncated."""
        vectors = self.model.encode(list(texts), normalize_embeddings=True, show_progress_bar=False)
        return np.asarray(vectors, dtype=np.float64)


def load_encoder(params: BaseParams, assets: Path) -> Encoder:
    """Load the encoder, once a process. Raises PerpetuneError if it is missing or no sentence encoder."""
    return _loaded(params.model, params.revision, assets.absolute())


@cache
def _loaded(model_name: str, revision: str | None, assets: Path) -> Encoder:
    params = BaseParams(model=model_name, revision=revision)
    folder = resolve(params, assets, setting=SETTING)
    from sentence_transformers import SentenceTransformer

    try:
        model = SentenceTransformer(str(folder), device="cpu")
    except (OSError, ValueError, KeyError) as fault:
        raise PerpetuneError(
            f"the encoder is no sentence-transformers model: {fault}",
            where=f"params.yaml: {SETTING}.model",
            do="name a sentence-transformers model, or set evaluate.encoder to null",
        ) from fault
    return Encoder(params, weights_digest(folder), model)


class Embedding(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A scikit-learn transformer from texts to embeddings of length `scale`."""

    def __init__(self, encoder: Encoder, scale: float) -> None:
        self.encoder = encoder
        self.scale = scale

    def fit(self, texts: Sequence[str], labels: Any = None) -> Embedding:
        """Nothing is fitted."""
        return self

    def transform(self, texts: Sequence[str]) -> np.ndarray:
        """Embeddings of shape (texts, size)."""
        return self.scale * self.encoder.encode(texts)

    def __sklearn_is_fitted__(self) -> bool:
        return True
