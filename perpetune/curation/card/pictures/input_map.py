"""The map of the inputs: each a point, alike inputs near each other.

The two main axes of the inputs' TF-IDF vectors: latent semantic analysis (Deerwester et al. 1990) to 32 dimensions, then
principal components. A map shows clusters, stray rows and labels that lie within each other; distances are approximate.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from typing import Any

import numpy as np
from markupsafe import Markup

from perpetune.curation.card.pictures.svg import WIDTH, dot, legend, picture
from perpetune.curation.text import fingerprint, shortened
from perpetune.records import Example

POINTS = 1_500
"""Rows on the map; of more, a sample by hash, which hardly changes when rows are added."""
COLOURS = 7
"""Labels with a colour of their own; the others are grey."""
_HEIGHT, _MARGIN, _TOPICS, _WORDS = 300, 8, 32, 20_000


@dataclass(frozen=True)
class Point:
    """A row; `x` and `y` are from 0 to 1, `kind` its label or its split."""

    x: float
    y: float
    kind: str
    input: str


def points(rows: Iterable[tuple[str, Example]]) -> list[Point]:
    """The points of rows, given with their kinds; none if there are too few different texts for a map."""
    sampled = nsmallest(POINTS, rows, key=lambda row: fingerprint("map", row[1].source, row[1].id))
    places = _places([row.input for _, row in sampled])
    if places is None:
        return []
    return [Point(float(x), float(y), kind, row.input) for (x, y), (kind, row) in zip(places, sampled, strict=True)]


def input_map(found: Sequence[Point], kinds: Sequence[str], *, labelled: bool) -> Markup:
    """The map and its legend; `kinds` are in the order of their importance. Splits have their colours of the page."""
    colours = {kind: f"c{place}" if labelled else kind for place, kind in enumerate(kinds[:COLOURS])}
    wide, high = WIDTH - 2 * _MARGIN, _HEIGHT - 2 * _MARGIN
    # Grey points first, so that the others lie above them.
    ordered = sorted(found, key=lambda each: each.kind in colours)
    dots = (
        dot(
            _MARGIN + wide * each.x,
            _MARGIN + high * each.y,
            2.4,
            colours.get(each.kind, "out"),
            f"{shortened(each.kind, 40)}: {shortened(each.input, 80)}",
        )
        for each in ordered
    )
    names = [(shortened(kind, 40), colour) for kind, colour in colours.items()]
    others = len(kinds) - len(colours)
    return legend([*names, *([(f"{others:,} others", "out")] if others > 0 else [])]) + picture(
        _HEIGHT, "A map of the inputs: alike ones are near each other", dots
    )


def _places(texts: Sequence[str]) -> np.ndarray | None:
    """Coordinates from 0 to 1, (texts, 2)."""
    if len(set(texts)) < 5:
        return None
    from sklearn.decomposition import PCA, TruncatedSVD

    vectors = _vectors(texts)
    topics = min(_TOPICS, vectors.shape[1] - 1, len(texts) - 1)
    if topics < 2:
        return None
    reduced = TruncatedSVD(topics, random_state=0).fit_transform(vectors)
    flat = PCA(2, svd_solver="full").fit_transform(reduced)
    # Stray rows would leave the others a spot in the middle: distances from it shrink with their size.
    middle, scale = np.median(flat, axis=0), np.maximum(flat.std(axis=0), 1e-9)
    shrunk = np.arcsinh(1.5 * (flat - middle) / scale)
    low, high = shrunk.min(axis=0), shrunk.max(axis=0)
    return np.asarray((shrunk - low) / np.maximum(high - low, 1e-9))


def _vectors(texts: Sequence[str]) -> Any:
    """A sparse matrix of TF-IDF, of words that two texts share or, if these are too few, of pieces of words."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    try:
        vectors = TfidfVectorizer(sublinear_tf=True, min_df=2, max_features=_WORDS).fit_transform(texts)
        if vectors.shape[1] >= 10:
            return vectors
    except ValueError:  # no word is in two of them
        pass
    return TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), max_features=_WORDS).fit_transform(texts)
