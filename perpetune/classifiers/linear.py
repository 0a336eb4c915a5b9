"""Logistic regression on TF-IDF and, if there is an encoder, on sentence embeddings: fit, save, load, predict.

On most tasks both kinds of features together are right more often than either.
"""

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

from perpetune.classifiers.encoder import Embedding, Encoder, load_encoder
from perpetune.errors import PerpetuneError
from perpetune.generation.answer import Answer, new_batch
from perpetune.params import BaseParams

DESCRIPTION, TENSORS = "linear.json", "linear.safetensors"
MAX_CHARACTER_FEATURES = 20_000  # more were slower to train and no more accurate
EMBEDDING_SCALE = 2.0  # the TF-IDF vector of words has length 1
INVERSE_PENALTY = 10.0


def linear_model(seed: int, encoder: Encoder | None = None) -> Pipeline:
    """An unfitted pipeline from texts to labels.

    Its features are TF-IDF of words and word pairs, TF-IDF of character n-grams (2 to 5, within words), and the
    encoder's embedding.
    """
    words = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\w+|[^\w\s]", sublinear_tf=True)
    pieces = TfidfVectorizer(
        analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True, max_features=MAX_CHARACTER_FEATURES
    )
    embeddings = [Embedding(encoder, EMBEDDING_SCALE)] if encoder else []
    classifier = LogisticRegression(C=INVERSE_PENALTY, max_iter=1000, random_state=seed)
    return make_pipeline(make_union(words, pieces, *embeddings), classifier)


def linear_answer(model: Pipeline, text: str) -> Answer:
    """The most likely label of one text, with the probabilities of `predict_proba`."""
    [answer] = linear_answers(model, [text])
    return answer


def linear_answers(model: Pipeline, texts: Sequence[str]) -> list[Answer]:
    """The same for many texts at once; `seconds` is the time divided by the number of texts.

    A single text bypasses scikit-learn, whose per-call overhead is milliseconds against about 0.1 ms.
    """
    began = perf_counter()
    found = [_probabilities(model, text) for text in texts] if len(texts) < 2 else model.predict_proba(texts)
    seconds, batch = (perf_counter() - began) / max(1, len(texts)), new_batch()
    return [_answer(model, probabilities, seconds, batch) for probabilities in found]


def _answer(model: Pipeline, probabilities: np.ndarray, seconds: float, batch: str) -> Answer:
    best = int(probabilities.argmax())
    labels = [str(label) for label in model.classes_]
    return Answer(
        text=labels[best],
        confidence=float(probabilities[best]),
        probabilities=dict(zip(labels, probabilities.tolist(), strict=True)),
        prompt_tokens=0,
        completion_tokens=0,
        finish_reason="stop",
        seconds=seconds,
        batch=batch,
    )


def _probabilities(model: Pipeline, text: str) -> np.ndarray:
    """The probability of each label for one text, (labels,)."""
    union, classifier = model
    scores, offset = classifier.intercept_.copy(), 0
    for _, part in union.transformer_list:
        columns, weights, width = _features(part, text)
        scores += classifier.coef_[:, columns + offset] @ weights
        offset += width
    if len(scores) > 1:
        return np.asarray(softmax(scores))
    return np.array(
        [expit(-scores[0]), expit(scores[0])]
    )  # for two labels scikit-learn keeps one score, that of the second


def _features(part: TfidfVectorizer | Embedding, text: str) -> tuple[np.ndarray, np.ndarray, int]:
    """The columns that are not 0 for this text, their values as `transform` gives them, and the number of columns."""
    if isinstance(part, Embedding):
        [vector] = part.transform([text])
        return np.arange(len(vector)), vector, len(vector)
    counts = Counter(part.build_analyzer()(text))
    known = part.vocabulary_
    found = {known[term]: count for term, count in counts.items() if term in known}
    columns = np.fromiter(found.keys(), dtype=np.intp, count=len(found))
    weights = (1 + np.log(np.fromiter(found.values(), dtype=float, count=len(found)))) * part.idf_[columns]
    return columns, weights / (np.linalg.norm(weights) or 1.0), len(known)


def save_linear_model(folder: Path, model: Pipeline) -> str:
    """Write a fitted model as JSON and safetensors, which hold no code; returns the sha256 of both files."""
    folder.mkdir(parents=True, exist_ok=True)
    union, classifier = model
    parts = [part for _, part in union.transformer_list]
    vectorizers = [part for part in parts if isinstance(part, TfidfVectorizer)]
    described: dict[str, object] = {
        "labels": [str(label) for label in model.classes_],
        "vectorizers": [
            {"settings": _settings(each), "terms": sorted(each.vocabulary_, key=each.vocabulary_.__getitem__)}
            for each in vectorizers
        ],
    }
    for part in parts:
        if isinstance(part, Embedding):
            encoder = part.encoder
            described["encoder"] = encoder.params.model_dump() | {"digest": encoder.digest, "scale": part.scale}
    learned = {f"idf.{number}": np.ascontiguousarray(each.idf_) for number, each in enumerate(vectorizers)}
    learned |= {"coef": np.ascontiguousarray(classifier.coef_), "intercept": classifier.intercept_}
    files = {DESCRIPTION: json.dumps(described, ensure_ascii=False).encode(), TENSORS: tensors_to_bytes(learned)}
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return hashlib.sha256(b"".join(hashlib.sha256(content).digest() for content in files.values())).hexdigest()


def load_linear_model(folder: Path, assets: Path) -> Pipeline:
    """Read what `save_linear_model` wrote, and load the encoder that it names.

    Raises PerpetuneError if the files are missing or invalid, or the encoder's weights are not those of training.
    """
    try:
        described = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        learned = load_file(folder / TENSORS)
        vectorizers = [
            _vectorizer(each["settings"], each["terms"], learned[f"idf.{number}"])
            for number, each in enumerate(described["vectorizers"])
        ]
        classifier, encoder = LogisticRegression(), described.get("encoder")
        classifier.classes_ = np.array(described["labels"])
        classifier.coef_, classifier.intercept_ = learned["coef"], learned["intercept"]
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as fault:
        raise PerpetuneError(f"the linear model cannot be read: {fault}", where=str(folder)) from fault
    embeddings = [_embedding(encoder, assets, folder)] if encoder else []
    return make_pipeline(make_union(*vectorizers, *embeddings), classifier)


def _embedding(described: dict[str, Any], assets: Path, folder: Path) -> Embedding:
    named = BaseParams(model=described["model"], revision=described["revision"])
    encoder = load_encoder(named, assets)
    if encoder.digest != described["digest"]:
        raise PerpetuneError(
            f"the linear model was trained with other weights of the encoder {named.model} than those on this machine",
            where=str(folder),
            do=f"install the encoder whose weights have the sha256 {described['digest'][:12]}, or run `perpetune refresh`",
        )
    return Embedding(encoder, described["scale"])


def _settings(vectorizer: TfidfVectorizer) -> dict[str, object]:
    """The vectorizer's settings that define terms and their weights."""
    kept = ("analyzer", "ngram_range", "token_pattern", "lowercase", "strip_accents", "sublinear_tf", "norm")
    settings = vectorizer.get_params()
    return {name: settings[name] for name in kept}


def _vectorizer(settings: dict[str, Any], terms: Sequence[str], idf: np.ndarray) -> TfidfVectorizer:
    ngrams = tuple(settings["ngram_range"])
    positions = {term: position for position, term in enumerate(terms)}
    vectorizer = TfidfVectorizer(**settings | {"ngram_range": ngrams}, vocabulary=positions)
    vectorizer.idf_ = idf
    return vectorizer
