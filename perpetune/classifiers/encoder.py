"""A sentence encoder: texts become vectors of unit length, alike for texts that mean alike.

Reimers and Gurevych 2019, Sentence-BERT, arXiv:1908.10084. Any model in the format of sentence-transformers serves.
"""

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
    """An encoder in memory, its name, and the sha256 of its weights."""

    params: BaseParams
    digest: str
    model: SentenceTransformer

    def embedded(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of shape (texts, size). What is longer than the encoder reads is cut off."""
        found = self.model.encode(list(texts), normalize_embeddings=True, show_progress_bar=False)
        return np.asarray(found, dtype=np.float64)


def load_encoder(params: BaseParams, assets: Path) -> Encoder:
    """Load it once a process. Raises PerpetuneError if it is missing or is no sentence encoder."""
    return _loaded(params, assets.absolute())


@cache
def _loaded(params: BaseParams, assets: Path) -> Encoder:
    folder = resolve(params, assets, setting=SETTING)
    from sentence_transformers import SentenceTransformer

    try:
        model = SentenceTransformer(str(folder), device="cpu")
    except (OSError, ValueError, KeyError) as fault:
        raise PerpetuneError(
            f"no sentence encoder can be read there: {fault}",
            where=f"params.yaml: {SETTING}.model",
            do="name a model in the format of sentence-transformers, or set it to null",
        ) from fault
    return Encoder(params, weights_digest(folder), model)


class Embedding(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """The vectors of an encoder, of length `scale`, as a step of a scikit-learn pipeline."""

    def __init__(self, encoder: Encoder, scale: float) -> None:
        self.encoder = encoder
        self.scale = scale

    def fit(self, texts: Sequence[str], labels: Any = None) -> Embedding:
        """It learns nothing."""
        return self

    def transform(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of shape (texts, size)."""
        return self.scale * self.encoder.embedded(texts)

    def __sklearn_is_fitted__(self) -> bool:
        return True
