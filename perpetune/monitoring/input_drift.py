"""One test of the whole input: do the window's requests differ from the reference?

Three statistics share the level. A classifier finds what has changed a little in all texts, such as their spelling; nearest
neighbours among sentence embeddings find what is new in a few, such as a topic; and lengths and signs are compared one by
one, because a classifier of thousands of words hardly sees four numbers. The columns of the report and the nearest examples
only explain the answer. See docs/decisions/0021 and 0037.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import ks_2samp
from sklearn.feature_extraction.text import TfidfVectorizer

from perpetune.monitoring.independent import Clustered, cluster_and_day
from perpetune.monitoring.window import Window, descriptors
from perpetune.policy.retraining import InputDrift
from perpetune.statistics.two_sample import Floats, classifier_test, nearest, neighbour_test

TEST = "classifier two-sample test"
BOTH = "two-sample tests by a classifier and by nearest neighbours"
PARTS = 3  # that share the level; without embeddings, all but the neighbours
LEVEL = 0.01  # of a test that stands alone
SMALLEST_AUC = 0.55  # a smaller area never counts, although it is significant in large windows
SMALLEST_SHIFT = 0.1  # of a KS distance: smaller ones never count either
NEIGHBOURS = 10
ALIKE = 0.95  # cosine of embeddings from which texts are near duplicates: of these one counts
MOST_ROWS = 1000  # of a side; more are thinned out evenly, which bounds the time
MOST_CHARACTERS = 1000  # of a text
RIDGE, RIDGE_OF_BOTH = 1.0, 3.0

Vector = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class InputRow:
    """An input, its cluster (a user or session on a day, or equal inputs), and its embedding of unit length if it is known.

    `of_user` says that the cluster is a user or session, so that equal inputs of others are no repetitions.
    """

    id: str
    text: str
    cluster: str
    of_user: bool = False
    vector: Vector | None = None


class Request(Clustered, Protocol):
    """A request or an example."""

    @property
    def id(self) -> str: ...


def rows_of_window(window: Window) -> list[InputRow]:
    """The window's inputs, without embeddings."""
    return [input_row(row) for row in window.predictions]


def rows_of_reference(window: Window) -> list[InputRow]:
    """The reference's inputs, without embeddings."""
    return [input_row(row) for row in window.reference]


def input_row(row: Request, vector: Vector | None = None) -> InputRow:
    return InputRow(row.id, row.input, cluster_and_day(row), bool(row.group), vector)


def compare_inputs(new: Sequence[InputRow], old: Sequence[InputRow], level: float = LEVEL, seed: int = 0) -> InputDrift:
    """Test the `new` inputs against the `old` ones at a level, which is the probability of a false alarm.

    One row of each cluster and of near duplicates counts, because such rows come together. The p-value is exact at any
    size if clusters are independent (that of the columns by its asymptotic form). If a row of either side has no embedding,
    there are no neighbours.
    """
    one, other = _independent(_thinned(new)), _independent(_thinned(old))
    rows = [*other, *one]
    is_new = [False] * len(other) + [True] * len(one)
    own = [str(place) for place in range(len(rows))]
    vectors = vectors_of(rows)
    if min(len(one), len(other)) < 2:
        return InputDrift(TEST, 0.5, 1.0, level, False, rows=len(one), reference_rows=len(other))
    described = pd.DataFrame(descriptors([row.text for row in rows]))
    kernel, ridge = _kernel([row.text for row in rows], described), RIDGE
    most = ceil(2 * PARTS / level)  # so that the least p-value there can be is well below the level
    near = None
    if vectors is not None:
        cosine = np.asarray(vectors @ vectors.T, dtype=np.float64)
        kernel, ridge = _scaled(kernel) + _scaled(_radial(cosine)), RIDGE_OF_BOTH
        near = neighbour_test(nearest(cosine, own, NEIGHBOURS), is_new, own, permutations=most, seed=seed)
    found = classifier_test(kernel, is_new, own, permutations=most, seed=seed, ridge=ridge)
    p_values = [found.p_value if found.auc >= SMALLEST_AUC else 1.0, p_of_columns(described, len(other))]
    p_values += [near.p_value] if near else []
    p_value = min(1.0, len(p_values) * min(p_values))
    return InputDrift(
        test=BOTH if near else TEST,
        auc=found.auc,
        p_value=p_value,
        level=level,
        drifted=p_value <= level,
        rows=len(one),
        reference_rows=len(other),
        own_neighbours=near.own if near else None,
        own_by_chance=near.by_chance if near else None,
    )


def p_of_columns(described: pd.DataFrame, old: int) -> float:
    """The p-value of the column that differs most, by the two-sample Kolmogorov-Smirnov test, times their number.

    The first `old` rows are the reference. A column that moved by less than `SMALLEST_SHIFT` does not count.
    """
    tests = [ks_2samp(described[name].iloc[:old], described[name].iloc[old:], method="asymp") for name in described]
    moved = [float(each.pvalue) for each in tests if each.statistic >= SMALLEST_SHIFT]
    return min(1.0, len(tests) * min(moved, default=1.0))


def _thinned(rows: Sequence[InputRow]) -> list[InputRow]:
    return [rows[int(row)] for row in np.unique(np.linspace(0, len(rows) - 1, min(len(rows), MOST_ROWS)).round())]


def _independent(rows: Sequence[InputRow]) -> list[InputRow]:
    """The first row of each cluster, and of rows of unknown users whose embeddings are almost the same."""
    firsts = list({row.cluster: row for row in reversed(rows)}.values())[::-1]
    vectors = vectors_of(firsts)
    if vectors is None:
        return firsts
    unknown = np.array([not row.of_user for row in firsts])
    is_alike = np.triu((vectors @ vectors.T >= ALIKE) & unknown[:, None] & unknown, 1)
    return [row for place, row in enumerate(firsts) if not is_alike[:place, place].any()]


def vectors_of(rows: Sequence[InputRow]) -> NDArray[np.float32] | None:
    """Embeddings (rows, size); None if one is missing."""
    known = [row.vector for row in rows if row.vector is not None]
    return np.stack(known) if rows and len(known) == len(rows) else None


def _kernel(texts: Sequence[str], described: pd.DataFrame) -> Floats:
    """Inner products (rows, rows) of the texts' features; words, letters and descriptors weigh alike."""
    cut = [text[:MOST_CHARACTERS] for text in texts]
    words = TfidfVectorizer(sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
    letters = TfidfVectorizer(sublinear_tf=True, analyzer="char", ngram_range=(3, 3), lowercase=False)
    ranks = described.rank(pct=True).to_numpy() - 0.5
    scaled = ranks * np.sqrt(12 / ranks.shape[1])
    return np.asarray(_products(words, cut) + _products(letters, cut) + scaled @ scaled.T)


def _products(vectorizer: TfidfVectorizer, texts: Sequence[str]) -> Floats:
    try:
        features = vectorizer.fit_transform(texts)
    except ValueError:  # no text has a feature
        return np.zeros((len(texts), len(texts)))
    return np.asarray((features @ features.T).toarray(), dtype=np.float64)


def _radial(cosine: Floats) -> Floats:
    """A radial kernel of unit vectors, as wide as their median squared distance."""
    distances = np.maximum(2 - 2 * cosine, 0.0)
    return np.asarray(np.exp(-distances / (float(np.median(distances)) or 1.0)))


def _scaled(kernel: Floats) -> Floats:
    """The kernel with a mean variance of 1, so that several weigh alike in a sum."""
    return np.asarray(kernel / (float(np.trace(kernel)) / len(kernel) - float(kernel.mean()) or 1.0))
