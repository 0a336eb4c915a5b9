"""TF-IDF with logistic regression: trained, kept, and asked one text at a time."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections import Counter
from pathlib import Path
from time import perf_counter

import numpy as np
import skops.io
from scipy.special import expit, softmax
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline, make_union
from skops.io.exceptions import UntrustedTypesFoundException

from perpetune.answer import Answer
from perpetune.errors import PerpetuneError

MODEL = "linear.skops"
MOST_CHARACTER_FEATURES = 20_000  # more made training slower and the answers no better


def linear_model(seed: int) -> Pipeline:
    """TF-IDF with logistic regression, to be fitted on inputs and their labels.

    Words and pairs of words, and pieces of words of 2 to 5 characters.
    """
    words = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\w+|[^\w\s]", sublinear_tf=True)
    pieces = TfidfVectorizer(
        analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True, max_features=MOST_CHARACTER_FEATURES
    )
    return make_pipeline(make_union(words, pieces), LogisticRegression(C=3.0, max_iter=1000, random_state=seed))


def linear_answer(model: Pipeline, text: str) -> Answer:
    """The likeliest label of one text, with the probabilities of `predict_proba`.

    A tenth of a millisecond or so; scikit-learn's own way, made for many texts at once, takes milliseconds.
    """
    began = perf_counter()
    probabilities = _probabilities(model, text)
    best = int(probabilities.argmax())
    labels = [str(label) for label in model.classes_]
    return Answer(
        text=labels[best],
        confidence=float(probabilities[best]),
        probabilities=dict(zip(labels, probabilities.tolist(), strict=True)),
        prompt_tokens=0,
        completion_tokens=0,
        finish_reason="stop",
        seconds=perf_counter() - began,
    )


def _probabilities(model: Pipeline, text: str) -> np.ndarray:
    """Of each label, shape (labels,)."""
    union, classifier = model
    scores, behind = classifier.intercept_.copy(), 0
    for _, vectorizer in union.transformer_list:
        columns, weights = _features(vectorizer, text)
        scores += classifier.coef_[:, columns + behind] @ weights
        behind += len(vectorizer.vocabulary_)
    if len(scores) > 1:
        return np.asarray(softmax(scores))
    return np.array([expit(-scores[0]), expit(scores[0])])  # of two labels, one score tells the second


def _features(vectorizer: TfidfVectorizer, text: str) -> tuple[np.ndarray, np.ndarray]:
    """The columns of the text's terms and their TF-IDF, as `transform` has them; both of shape (terms,)."""
    counts = Counter(vectorizer.build_analyzer()(text))
    known = vectorizer.vocabulary_
    found = {known[term]: count for term, count in counts.items() if term in known}
    columns = np.fromiter(found.keys(), dtype=np.intp, count=len(found))
    weights = (1 + np.log(np.fromiter(found.values(), dtype=float, count=len(found)))) * vectorizer.idf_[columns]
    return columns, weights / (np.linalg.norm(weights) or 1.0)


def save_linear_model(folder: Path, model: Pipeline) -> str:
    """Write a fitted model into the folder, without pickle; returns the sha256 of what it has learned."""
    folder.mkdir(parents=True, exist_ok=True)
    skops.io.dump(model, folder / MODEL, compression=zipfile.ZIP_DEFLATED)
    return _digest(model)


def load_linear_model(folder: Path) -> Pipeline:
    """What `save_linear_model` wrote. Raises PerpetuneError if it is missing or holds more than scikit-learn's types."""
    path = folder / MODEL
    try:
        model = skops.io.load(path, trusted=[])
    except (OSError, zipfile.BadZipFile, KeyError) as fault:
        raise PerpetuneError(f"the linear model cannot be read: {fault}", where=str(path)) from fault
    except UntrustedTypesFoundException as fault:
        raise PerpetuneError(f"the linear model is not loaded: {fault}", where=str(path)) from fault
    if not isinstance(model, Pipeline):
        raise PerpetuneError(f"this is no linear model but a {type(model).__name__}", where=str(path))
    return model


def _digest(model: Pipeline) -> str:
    """Equal for models that answer alike: the file's own bytes hold addresses in memory and times."""
    union, classifier = model
    digest = hashlib.sha256(json.dumps([str(label) for label in model.classes_]).encode())
    for _, vectorizer in union.transformer_list:
        terms = sorted((int(column), term) for term, column in vectorizer.vocabulary_.items())
        digest.update(json.dumps(terms).encode() + np.ascontiguousarray(vectorizer.idf_).tobytes())
    digest.update(np.ascontiguousarray(classifier.coef_).tobytes() + classifier.intercept_.tobytes())
    return digest.hexdigest()
