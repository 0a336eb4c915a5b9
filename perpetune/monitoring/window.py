"""A window of predictions and the reference that it is compared with, as data frames for drift tests."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from perpetune.evaluation.scores.text_metrics import same_label
from perpetune.records import Example, Prediction

INPUT_COLUMNS = ("characters", "words", "mean word length", "non-letter ratio", "unseen word ratio")
ANSWER = "answer"
ANSWER_LENGTH = "answer length"
CONFIDENCE = "confidence"
SCORE = "score"
RARE = 5  # the chi-square approximation needs about this many in a cell

Scorer = Callable[[str, str], float]
"""score(expected output, answer), 0 to 1."""

_WORD = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True)
class Window:
    """Predictions of one champion and the reference rows that they are compared with.

    All `predictions` are of the current champion. `answers` maps the id of a reference example to the champion's recorded
    output and confidence; examples without one still count as inputs. `score` is the task's score.
    """

    predictions: Sequence[Prediction]
    reference: Sequence[Example]
    answers: Mapping[str, tuple[str, float | None]]
    kind: Literal["classification", "generation"]
    score: Scorer = same_label


def current_frame(window: Window) -> pd.DataFrame:
    """A row for each prediction: `INPUT_COLUMNS`, the answer or its length, confidence and score."""
    rows = window.predictions
    seen = _groups_of_words(window.reference)
    return pd.DataFrame(
        {
            **descriptors([row.input for row in rows]),
            "unseen word ratio": [_ratio(word not in seen for word in _words(row.input)) for row in rows],
            **_answers([row.output for row in rows], window.kind),
            CONFIDENCE: _floats([row.confidence for row in rows]),
            SCORE: _floats([None if row.label is None else window.score(row.label, row.output) for row in rows]),
        }
    )


def reference_frame(window: Window) -> pd.DataFrame:
    """A row for each reference example, with the columns of `current_frame`.

    A word is unseen if no other group of the reference has it. If an example's own group counted, the reference would
    have almost no unseen words and every window would drift.
    """
    rows = window.reference
    groups = _groups_of_words(rows)
    answers = [window.answers.get(row.id, (None, None)) for row in rows]
    return pd.DataFrame(
        {
            **descriptors([row.input for row in rows]),
            "unseen word ratio": [_ratio(len(groups[word]) == 1 for word in _words(row.input)) for row in rows],
            **_answers([output for output, _ in answers], window.kind),
            CONFIDENCE: _floats([confidence for _, confidence in answers]),
            SCORE: _floats(
                [
                    None if output is None else max(window.score(wanted, output) for wanted in row.right_outputs)
                    for row, (output, _) in zip(rows, answers, strict=True)
                ]
            ),
        }
    )


def descriptors(texts: Sequence[str]) -> dict[str, list[float]]:
    """Columns that describe texts on their own."""
    return {
        "characters": [float(len(text)) for text in texts],
        "words": [float(len(text.split())) for text in texts],
        "mean word length": [_mean(len(word) for word in text.split()) for text in texts],
        "non-letter ratio": [_ratio(not (letter.isalpha() or letter.isspace()) for letter in text) for text in texts],
    }


def answer_counts(reference: pd.Series, current: pd.Series) -> np.ndarray:
    """A table of shape (2, answers); answers given fewer than `RARE` times in total are merged into one column."""
    both = pd.DataFrame({"reference": reference.value_counts(), "current": current.value_counts()}).fillna(0)
    rare = both.sum(axis=1) < RARE
    kept = both[~rare].to_numpy()
    return np.vstack([kept, both[rare].sum().to_numpy()]).T if rare.any() else kept.T


def _answers(outputs: Sequence[str | None], kind: str) -> dict[str, list[str | None] | np.ndarray]:
    if kind == "classification":
        return {ANSWER: [None if output is None else output.strip() for output in outputs]}
    return {ANSWER_LENGTH: _floats([None if output is None else len(output) for output in outputs])}


def _groups_of_words(reference: Sequence[Example]) -> dict[str, set[str]]:
    groups: dict[str, set[str]] = {}
    for row in reference:
        for word in _words(row.input):
            groups.setdefault(word, set()).add(row.group)
    return groups


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def _ratio(flags: Iterable[bool]) -> float:
    return _mean(float(flag) for flag in flags)


def _mean(values: Iterable[float]) -> float:
    """The mean; 0 of an empty sequence."""
    found = list(values)
    return sum(found) / len(found) if found else 0.0


def _floats(values: Sequence[float | None]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values], dtype=float)
