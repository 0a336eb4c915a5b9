"""Texts as points, alike ones near each other: latent semantic analysis (Deerwester et al. 1990) of their TF-IDF vectors.

In NumPy alone: importing scikit-learn for it took longer than all else of the card.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from itertools import chain

import numpy as np

_WORD = re.compile(r"\b\w\w+\b")
_TERMS, _PIECES = 20_000, (2, 3, 4)
_MORE_AXES, _ROUNDS = 10, 5  # of the randomised decomposition (Halko et al. 2011)


@dataclass(frozen=True)
class Vectors:
    """A sparse matrix, (texts, terms): `values[i]` is at `texts[i]`, `terms[i]`."""

    shape: tuple[int, int]
    texts: np.ndarray
    terms: np.ndarray
    values: np.ndarray

    def times(self, dense: np.ndarray) -> np.ndarray:
        return _product(self.texts, self.terms, self.values, dense, self.shape[0])

    def transposed_times(self, dense: np.ndarray) -> np.ndarray:
        return _product(self.terms, self.texts, self.values, dense, self.shape[1])


def text_axes(texts: Sequence[str], axes: int) -> np.ndarray | None:
    """The main axes of the texts, (texts, at most `axes`); None if they have too few words for two."""
    vectors = _vectors(texts)
    axes = min(axes, vectors.shape[0] - 1, vectors.shape[1] - 1)
    if axes < 2:
        return None
    seen = min(axes + _MORE_AXES, *vectors.shape)
    guess = vectors.times(np.random.default_rng(0).standard_normal((vectors.shape[1], seen)))
    for _ in range(_ROUNDS):
        orthogonal, _ = np.linalg.qr(guess)
        guess = vectors.times(vectors.transposed_times(orthogonal))
    orthogonal, _ = np.linalg.qr(guess)
    _, sizes, turned = np.linalg.svd(vectors.transposed_times(orthogonal), full_matrices=False)
    return np.asarray(orthogonal @ turned.T * sizes)[:, :axes]


def principal_plane(points: np.ndarray) -> np.ndarray:
    """The two principal components of points, (points, 2), each with its farthest point on the positive side."""
    left, sizes, _ = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)
    plane = left[:, :2] * sizes[:2]
    farthest = plane[np.abs(plane).argmax(axis=0), range(plane.shape[1])]
    return np.asarray(plane * np.where(farthest < 0, -1, 1))


def _vectors(texts: Sequence[str]) -> Vectors:
    """TF-IDF of words that two texts share or, if these are too few, of pieces of words."""
    shared = _tf_idf(texts, lambda text: _WORD.findall(text), least=2)
    return shared if shared.shape[1] >= 10 else _tf_idf(texts, _pieces, least=1)


def _pieces(text: str) -> Iterable[str]:
    padded = [f" {word} " for word in text.split()]
    return (word[at : at + size] for word in padded for size in _PIECES for at in range(len(word) - size + 1))


def _tf_idf(texts: Sequence[str], split: Callable[[str], Iterable[str]], least: int) -> Vectors:
    """Vectors of length 1 of the terms that are in most texts, and in at least so many."""
    counted = [Counter(split(text.lower())) for text in texts]
    holders = Counter(chain.from_iterable(counted))
    known = [(-texts_with, term) for term, texts_with in holders.items() if texts_with >= least]
    places = {term: place for place, (_, term) in enumerate(nsmallest(_TERMS, known))}
    found = [
        (text, places[term], times)
        for text, each in enumerate(counted)
        for term, times in each.items()
        if term in places
    ]
    rows, columns, times = np.array(found, dtype=np.int64).reshape(-1, 3).T
    rarity = 1 + np.log((1 + len(texts)) / (1 + np.bincount(columns, minlength=len(places))))
    values = (1 + np.log(times)) * rarity[columns]
    lengths = np.sqrt(np.bincount(rows, values**2, minlength=len(texts)))
    return Vectors((len(texts), len(places)), rows, columns, values / lengths[rows])


def _product(rows: np.ndarray, columns: np.ndarray, values: np.ndarray, dense: np.ndarray, height: int) -> np.ndarray:
    """Of the sparse matrix with these entries and a dense one."""
    return np.stack([np.bincount(rows, values * each[columns], minlength=height) for each in dense.T], axis=1)
