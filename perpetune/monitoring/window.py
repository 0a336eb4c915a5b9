"""A window: predictions judged together, beside the reference that they are judged against."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from perpetune.evaluation.scores.text_metrics import same_label
from perpetune.records import Example, Prediction

INPUT_COLUMNS = ("characters", "words", "mean word length", "non-letter share", "unseen word share")
ANSWER = "answer"
ANSWER_LENGTH = "answer length"
CONFIDENCE = "confidence"
SCORE = "score"

Scorer = Callable[[str, str], float]
"""From the wanted output and the answer to 0 ... 1."""

_WORD = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True)
class Window:
    """Predictions of one champion and the reference rows that they are judged against.

    `predictions` are all of the present champion's: answers of its predecessor would be held against
    it. `answers` maps the id of a reference example to the champion's recorded output and confidence
    for it; examples without one still count as inputs. `score` is that of the task, for window and reference alike.
    """

    predictions: Sequence[Prediction]
    reference: Sequence[Example]
    answers: Mapping[str, tuple[str, float | None]]
    kind: Literal["classification", "generation"]
    score: Scorer = same_label


def current_frame(window: Window) -> pd.DataFrame:
    """One row for each prediction: `INPUT_COLUMNS`, the answer or its length, confidence and score."""
    rows = window.predictions
    known = _groups_of_words(window.reference)
    return pd.DataFrame(
        {
            **_descriptors([row.input for row in rows]),
            "unseen word share": [_share(word not in known for word in _words(row.input)) for row in rows],
            **_answers([row.output for row in rows], window.kind),
            CONFIDENCE: _floats([row.confidence for row in rows]),
            SCORE: _floats([None if row.label is None else window.score(row.label, row.output) for row in rows]),
        }
    )


def reference_frame(window: Window) -> pd.DataFrame:
    """The same columns, one row for each reference example.

    Its words count as unseen where no other group of the reference has them. Were an example's own
    group counted, the reference would hardly ever hold an unseen word and every window would seem
    to have drifted.
    """
    rows = window.reference
    groups = _groups_of_words(rows)
    answers = [window.answers.get(row.id, (None, None)) for row in rows]
    return pd.DataFrame(
        {
            **_descriptors([row.input for row in rows]),
            "unseen word share": [_share(len(groups[word]) == 1 for word in _words(row.input)) for row in rows],
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


def _descriptors(texts: Sequence[str]) -> dict[str, list[float]]:
    return {
        "characters": [float(len(text)) for text in texts],
        "words": [float(len(text.split())) for text in texts],
        "mean word length": [_mean(len(word) for word in text.split()) for text in texts],
        "non-letter share": [_share(not (letter.isalpha() or letter.isspace()) for letter in text) for text in texts],
    }


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


def _share(flags: Iterable[bool]) -> float:
    return _mean(float(flag) for flag in flags)


def _mean(values: Iterable[float]) -> float:
    """The mean, 0 of nothing."""
    found = list(values)
    return sum(found) / len(found) if found else 0.0


def _floats(values: Sequence[float | None]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values], dtype=float)
