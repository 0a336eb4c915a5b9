"""Classification metrics: accuracy, macro F1, per-label table and confusion matrix."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_fscore_support

from perpetune.statistics.estimate import Estimate, Floats, bootstrap_counts, wilson


@dataclass(frozen=True)
class Confusion:
    """counts[i, j]: rows with the expected label labels[i] and the answer labels[j]."""

    labels: tuple[str, ...]
    counts: NDArray[np.int64]


def accuracy(expected: Sequence[str], answers: Sequence[str], *, confidence: float) -> Estimate:
    """The accuracy, with Wilson's interval."""
    return wilson(sum(w == a for w, a in zip(expected, answers, strict=True)), len(expected), confidence)


def macro_f1(
    expected: Sequence[str], answers: Sequence[str], *, confidence: float, samples: int, seed: int
) -> Estimate:
    """Macro F1 over the labels that are expected at least once, with a bootstrap interval over rows.

    A label that is answered but never expected has no F1; its rows only lower the recall of their expected labels.
    """
    kinds = Counter(zip(expected, answers, strict=True))
    pairs = sorted(kinds)
    labels = sorted({w for w, _ in pairs})
    is_expected = np.array([[w == label for label in labels] for w, _ in pairs], dtype=np.float64)
    is_answered = np.array([[a == label for label in labels] for _, a in pairs], dtype=np.float64)

    def mean_f1(counts: Floats) -> Floats:
        support, predicted = counts @ is_expected, counts @ is_answered
        hits = counts @ (is_expected * is_answered)
        f1 = 2 * hits / np.maximum(support + predicted, 1)
        present = support > 0  # a resample can lack a rare label
        return np.asarray((f1 * present).sum(axis=1) / present.sum(axis=1), dtype=np.float64)

    counts = np.array([kinds[pair] for pair in pairs], dtype=np.int64)
    return bootstrap_counts(counts, mean_f1, confidence=confidence, samples=samples, seed=seed)


def label_table(expected: Sequence[str], answers: Sequence[str], known: Collection[str]) -> pd.DataFrame:
    """Precision, recall, F1 and support per label, by descending support.

    `known` are the labels that the system can answer; other expected labels have `known` False.
    """
    labels = all_labels(expected, answers)
    precision, recall, f1, support = precision_recall_fscore_support(expected, answers, labels=labels, zero_division=0)
    table = pd.DataFrame(
        {
            "label": labels,
            "precision": precision,
            "recall": recall,
            "f1": f1,
            "support": support.astype(int),
            "answered": [Counter(answers)[label] for label in labels],
            "known": [label in known for label in labels],
        }
    )
    return table.sort_values(["support", "label"], ascending=[False, True], ignore_index=True)


def confusion(expected: Sequence[str], answers: Sequence[str]) -> Confusion:
    """The confusion matrix over all expected or answered labels, in alphabetical order."""
    labels = all_labels(expected, answers)
    position = {label: number for number, label in enumerate(labels)}
    counts = np.zeros((len(labels), len(labels)), dtype=np.int64)
    for (w, a), rows in Counter(zip(expected, answers, strict=True)).items():
        counts[position[w], position[a]] = rows
    return Confusion(tuple(labels), counts)


def all_labels(expected: Sequence[str], answers: Sequence[str]) -> list[str]:
    """All expected or answered labels, in alphabetical order."""
    return sorted({*expected, *answers})


def unknown_labels(expected: Sequence[str], known: Collection[str]) -> dict[str, int]:
    """The expected labels that a system cannot answer, with their number of rows."""
    return {label: rows for label, rows in sorted(Counter(expected).items()) if label not in known}
