"""The cheap systems that a language model has to beat on the same rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from time import perf_counter

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline, make_union

from perpetune.answer import Answer
from perpetune.evaluation.systems import Kind
from perpetune.records import Example

MOST_CHARACTER_FEATURES = 20_000  # more made training slower and the answers no better


def majority_answers(train: Sequence[Example], rows: Sequence[Example], kind: Kind) -> list[Answer]:
    """The most frequent output of the training rows, for every row (of several, the first in the alphabet).

    For classification its probabilities are the shares of the outputs.
    """
    counts = Counter(example.output for example in train)
    answer = min(counts, key=lambda output: (-counts[output], output))
    shares = {output: count / len(train) for output, count in sorted(counts.items())}
    return [_answer(answer, shares if kind == "classification" else None, seconds=0.0) for _ in rows]


def linear_answers(train: Sequence[Example], rows: Sequence[Example], seed: int) -> list[Answer]:
    """What TF-IDF with logistic regression answers, trained on the same rows as the model.

    Words and pairs of words, and pieces of words of 2 to 5 characters. Where there is nothing to
    learn from (one label, or no input with text) it is the majority answer.
    """
    labels = {example.output for example in train}
    if len(labels) < 2 or not any(example.input.strip() for example in train):
        return majority_answers(train, rows, "classification")
    model = linear_model(seed).fit([example.input for example in train], [example.output for example in train])
    started = perf_counter()
    probabilities = model.predict_proba([example.input for example in rows])
    seconds = (perf_counter() - started) / len(rows)
    classes = [str(label) for label in model.classes_]
    return [
        _answer(classes[int(row.argmax())], dict(zip(classes, row.tolist(), strict=True)), seconds)
        for row in probabilities
    ]


def linear_model(seed: int) -> Pipeline:
    """TF-IDF with logistic regression, to be fitted on inputs and their labels."""
    words = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\w+|[^\w\s]", sublinear_tf=True)
    pieces = TfidfVectorizer(
        analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True, max_features=MOST_CHARACTER_FEATURES
    )
    return make_pipeline(make_union(words, pieces), LogisticRegression(C=3.0, max_iter=1000, random_state=seed))


def _answer(text: str, probabilities: dict[str, float] | None, seconds: float) -> Answer:
    return Answer(
        text=text,
        confidence=probabilities[text] if probabilities else None,
        probabilities=probabilities,
        prompt_tokens=0,
        completion_tokens=0,
        finish_reason="stop",
        seconds=seconds,
    )
