"""TF-IDF with logistic regression: trained, kept, and asked one text at a time."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file
from safetensors.numpy import save as tensors_to_bytes
from scipy.special import expit, softmax
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline, make_union

from perpetune.answer import Answer
from perpetune.errors import PerpetuneError

DESCRIPTION, TENSORS = "linear.json", "linear.safetensors"
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
    """Write a fitted model into the folder, as JSON and tensors that hold no code; returns the sha256 of both."""
    folder.mkdir(parents=True, exist_ok=True)
    union, classifier = model
    vectorizers = [vectorizer for _, vectorizer in union.transformer_list]
    described = {
        "labels": [str(label) for label in model.classes_],
        "vectorizers": [
            {"settings": _settings(each), "terms": sorted(each.vocabulary_, key=each.vocabulary_.__getitem__)}
            for each in vectorizers
        ],
    }
    learned = {f"idf.{number}": np.ascontiguousarray(each.idf_) for number, each in enumerate(vectorizers)}
    learned |= {"coef": np.ascontiguousarray(classifier.coef_), "intercept": classifier.intercept_}
    files = {DESCRIPTION: json.dumps(described, ensure_ascii=False).encode(), TENSORS: tensors_to_bytes(learned)}
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return hashlib.sha256(b"".join(hashlib.sha256(content).digest() for content in files.values())).hexdigest()


def load_linear_model(folder: Path) -> Pipeline:
    """What `save_linear_model` wrote. Raises PerpetuneError if it is missing or something else."""
    try:
        described = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        learned = load_file(folder / TENSORS)
        vectorizers = [
            _vectorizer(each["settings"], each["terms"], learned[f"idf.{number}"])
            for number, each in enumerate(described["vectorizers"])
        ]
        classifier = LogisticRegression()
        classifier.classes_ = np.array(described["labels"])
        classifier.coef_, classifier.intercept_ = learned["coef"], learned["intercept"]
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as fault:
        raise PerpetuneError(f"no linear model can be read here: {fault}", where=str(folder)) from fault
    return make_pipeline(make_union(*vectorizers), classifier)


def _settings(vectorizer: TfidfVectorizer) -> dict[str, object]:
    """Those that say how a text becomes terms and their weights."""
    kept = ("analyzer", "ngram_range", "token_pattern", "lowercase", "strip_accents", "sublinear_tf", "norm")
    settings = vectorizer.get_params()
    return {name: settings[name] for name in kept}


def _vectorizer(settings: dict[str, Any], terms: Sequence[str], idf: np.ndarray) -> TfidfVectorizer:
    ngrams = tuple(settings["ngram_range"])
    places = {term: place for place, term in enumerate(terms)}
    vectorizer = TfidfVectorizer(**settings | {"ngram_range": ngrams}, vocabulary=places)
    vectorizer.idf_ = idf
    return vectorizer
