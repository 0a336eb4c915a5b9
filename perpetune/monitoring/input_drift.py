"""One test of the whole input: can a classifier tell the window's texts from those of the reference?

The columns of the report only explain its answer: a change of topic may move none of them enough, and a test of each column
would have to share the error rate among them. See docs/decisions/0021-one-test-of-the-whole-input.md.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn.feature_extraction.text import TfidfVectorizer

from perpetune.monitoring.window import INPUT_COLUMNS, Window
from perpetune.policy.retraining import InputDrift
from perpetune.statistics.two_sample import Floats, classifier_test

TEST = "classifier two-sample test"
LEVEL = 0.01  # false-alarm rate of a check
SMALLEST_AUC = 0.55  # a smaller area never counts, although it is significant in large windows
PERMUTATIONS = 499
MOST_ROWS = 1000  # of a side; more are thinned out evenly, which bounds the time
MOST_CHARACTERS = 1000  # of a text


def whole_input_drift(window: Window, current: pd.DataFrame, reference: pd.DataFrame, seed: int = 0) -> InputDrift:
    """Test the window's inputs against the reference's; `current` and `reference` are their columns, row by row.

    Features: TF-IDF of words and of three letters, and the ranks of the columns. Rows of one group (a conversation, a
    document) are left out and permuted together, since they resemble each other. The p-value is exact at any size if
    groups are independent; a window of one group can never show drift.
    """
    new, old = _thinned(len(current)), _thinned(len(reference))
    texts = [window.reference[row].input for row in old] + [window.predictions[row].input for row in new]
    groups = [window.reference[row].group for row in old]
    groups += [window.predictions[row].group or window.predictions[row].id for row in new]
    columns = pd.concat([reference.iloc[old], current.iloc[new]])[list(INPUT_COLUMNS)]
    found = classifier_test(
        _kernel(texts, columns),
        [False] * len(old) + [True] * len(new),
        groups,
        permutations=PERMUTATIONS,
        seed=seed,
    )
    return InputDrift(TEST, found.auc, found.p_value, LEVEL, found.p_value <= LEVEL and found.auc >= SMALLEST_AUC)


def _thinned(rows: int) -> list[int]:
    return [int(row) for row in np.unique(np.linspace(0, rows - 1, min(rows, MOST_ROWS)).round())]


def _kernel(texts: Sequence[str], columns: pd.DataFrame) -> Floats:
    """Inner products (rows, rows) of the features; words, letters and columns weigh alike."""
    cut = [text[:MOST_CHARACTERS] for text in texts]
    words = TfidfVectorizer(sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
    letters = TfidfVectorizer(sublinear_tf=True, analyzer="char", ngram_range=(3, 3), lowercase=False)
    ranks = columns.rank(pct=True).to_numpy() - 0.5
    scaled = ranks * np.sqrt(12 / ranks.shape[1])
    return np.asarray(_products(words, cut) + _products(letters, cut) + scaled @ scaled.T)


def _products(vectorizer: TfidfVectorizer, texts: Sequence[str]) -> Floats:
    try:
        features = vectorizer.fit_transform(texts)
    except ValueError:  # no text has a feature
        return np.zeros((len(texts), len(texts)))
    return np.asarray((features @ features.T).toarray(), dtype=np.float64)
