"""How well answers from a fixed set of labels agree with the wanted ones."""

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
    """counts[i, j]: rows whose wanted label is labels[i] and whose answer is labels[j]."""

    labels: tuple[str, ...]
    counts: NDArray[np.int64]


def accuracy(wanted: Sequence[str], answers: Sequence[str], *, confidence: float) -> Estimate:
    """The share of right answers, with Wilson's interval."""
    return wilson(sum(w == a for w, a in zip(wanted, answers, strict=True)), len(wanted), confidence)


def macro_f1(wanted: Sequence[str], answers: Sequence[str], *, confidence: float, samples: int, seed: int) -> Estimate:
    """The mean F1 of the labels that are wanted at least once, with a bootstrap interval over rows.

    A label that is answered but never wanted lowers the precision of no wanted label and has no F1
    of its own; its rows count against the recall of the labels they should have had.
    """
    kinds = Counter(zip(wanted, answers, strict=True))
    pairs = sorted(kinds)
    labels = sorted({w for w, _ in pairs})
    is_wanted = np.array([[w == label for label in labels] for w, _ in pairs], dtype=np.float64)
    is_answered = np.array([[a == label for label in labels] for _, a in pairs], dtype=np.float64)

    def mean_f1(counts: Floats) -> Floats:
        support, predicted = counts @ is_wanted, counts @ is_answered
        hits = counts @ (is_wanted * is_answered)
        f1 = 2 * hits / np.maximum(support + predicted, 1)
        present = support > 0  # a resample can lack a rare label altogether
        return np.asarray((f1 * present).sum(axis=1) / present.sum(axis=1), dtype=np.float64)

    counts = np.array([kinds[pair] for pair in pairs], dtype=np.int64)
    return bootstrap_counts(counts, mean_f1, confidence=confidence, samples=samples, seed=seed)


def label_table(wanted: Sequence[str], answers: Sequence[str], known: Collection[str]) -> pd.DataFrame:
    """Precision, recall, F1 and support per label, the commonest label first.

    `known` are the labels that the system can answer. A wanted label that it does not know is an
    error on every row and stands in the table with `known` False.
    """
    labels = all_labels(wanted, answers)
    precision, recall, f1, support = precision_recall_fscore_support(wanted, answers, labels=labels, zero_division=0)
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


def confusion(wanted: Sequence[str], answers: Sequence[str]) -> Confusion:
    """The confusion matrix over all labels wanted or answered, in alphabetical order."""
    labels = all_labels(wanted, answers)
    position = {label: number for number, label in enumerate(labels)}
    counts = np.zeros((len(labels), len(labels)), dtype=np.int64)
    for (w, a), rows in Counter(zip(wanted, answers, strict=True)).items():
        counts[position[w], position[a]] = rows
    return Confusion(tuple(labels), counts)


def all_labels(wanted: Sequence[str], answers: Sequence[str]) -> list[str]:
    """Every label wanted or answered, in alphabetical order."""
    return sorted({*wanted, *answers})


def unknown_labels(wanted: Sequence[str], known: Collection[str]) -> dict[str, int]:
    """The wanted labels that a system cannot answer, with their rows."""
    return {label: rows for label, rows in sorted(Counter(wanted).items()) if label not in known}
