from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.pipeline import Pipeline

from perpetune.classifiers.encoder import load_encoder
from perpetune.classifiers.linear import (
    DESCRIPTION,
    TENSORS,
    linear_answer,
    linear_answers,
    linear_model,
    load_linear_model,
    save_linear_model,
)
from perpetune.errors import PerpetuneError
from perpetune.params import BaseParams

WORDS = {"parcel": "delivery", "courier": "delivery", "refund": "money", "invoice": "money", "password": "account"}
COLOURS = {"sky": "blue", "sea": "blue", "grass": "green", "leaf": "green", "blood": "red", "fire": "red"}
UNSEEN = ["Where is MY parcel?", "an invoice, please", "!?", "", "ein Passwort, bitte", "refund refund refund"]


def fitted(labels: int) -> Pipeline:
    pairs = [(word, label) for word, label in WORDS.items() if label in sorted(set(WORDS.values()))[-labels:]]
    texts = [f"{word} {noun}" for word, _ in pairs for noun in ("please", "now", "is late")]
    return linear_model(7).fit(texts, [label for _, label in pairs for _ in range(3)])


@pytest.mark.parametrize("labels", [2, 3])
def test_one_text_is_answered_as_by_scikit_learn(labels: int) -> None:
    model = fitted(labels)
    for text, wanted in zip(UNSEEN, model.predict_proba(UNSEEN), strict=True):
        answer = linear_answer(model, text)
        assert answer.probabilities is not None
        assert list(answer.probabilities) == list(model.classes_)
        np.testing.assert_allclose(list(answer.probabilities.values()), wanted, atol=1e-12)
        assert answer.confidence == max(answer.probabilities.values()) == answer.probabilities[answer.text]
        assert (answer.prompt_tokens, answer.completion_tokens, answer.finish_reason) == (0, 0, "stop")
    for text, together in zip(UNSEEN, linear_answers(model, UNSEEN), strict=True):
        alone = linear_answer(model, text)
        assert together.text == alone.text
        assert together.probabilities == pytest.approx(alone.probabilities, abs=1e-12)
    assert linear_answers(model, []) == []


@pytest.mark.parametrize("labels", [2, 3])
def test_a_model_comes_back_as_it_was_kept(labels: int, tmp_path: Path) -> None:
    model = fitted(labels)
    digest = save_linear_model(tmp_path, model)
    back = load_linear_model(tmp_path, tmp_path)
    assert (back.predict_proba(UNSEEN) == model.predict_proba(UNSEEN)).all()
    assert [linear_answer(back, text).probabilities for text in UNSEEN] == [
        linear_answer(model, text).probabilities for text in UNSEEN
    ]
    assert save_linear_model(tmp_path / "again", back) == digest
    assert save_linear_model(tmp_path / "other", fitted(5 - labels)) != digest


def test_what_is_no_model_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(PerpetuneError, match="the linear model cannot be read"):
        load_linear_model(tmp_path, tmp_path)
    save_linear_model(tmp_path, fitted(2))
    (tmp_path / DESCRIPTION).write_text(json.dumps({"labels": ["a"], "vectorizers": [{"terms": []}]}))
    with pytest.raises(PerpetuneError, match="the linear model cannot be read"):
        load_linear_model(tmp_path, tmp_path)
    save_linear_model(tmp_path, fitted(2))
    (tmp_path / TENSORS).write_bytes(b"\x80\x04cos\nsystem\n")
    with pytest.raises(PerpetuneError, match="the linear model cannot be read"):
        load_linear_model(tmp_path, tmp_path)


def test_a_model_on_embeddings_comes_back_with_its_encoder(tiny_encoder: BaseParams, tmp_path: Path) -> None:
    encoder = load_encoder(tiny_encoder, tmp_path)
    assert load_encoder(tiny_encoder, tmp_path) is encoder, "versions share one"
    np.testing.assert_allclose(np.linalg.norm(encoder.encode(["the sky", "?"]), axis=1), 1, atol=1e-6)
    model = linear_model(7, encoder).fit([f"the {thing}" for thing in COLOURS], list(COLOURS.values()))
    assert (
        model[0].transform(["the sky"]).shape[1]
        > linear_model(7)[0].fit_transform([f"the {thing}" for thing in COLOURS]).shape[1]
    ), "its vectors stand beside the words"
    digest = save_linear_model(tmp_path, model)
    back = load_linear_model(tmp_path, tmp_path)
    asked = ["the sky", "is it blood", "?"]
    for text, wanted in zip(asked, model.predict_proba(asked), strict=True):
        answer = linear_answer(back, text)
        assert answer.probabilities is not None
        np.testing.assert_allclose(list(answer.probabilities.values()), wanted, atol=1e-6)
    assert save_linear_model(tmp_path / "again", back) == digest


def test_a_model_is_not_served_with_another_encoder_than_its_own(tiny_encoder: BaseParams, tmp_path: Path) -> None:
    encoder = load_encoder(tiny_encoder, tmp_path)
    model = linear_model(7, replace(encoder, digest="0" * 64)).fit(list(COLOURS), list(COLOURS.values()))
    save_linear_model(tmp_path, model)
    with pytest.raises(PerpetuneError, match=r"(?s)other weights of the encoder path:.* sha256 000000000000"):
        load_linear_model(tmp_path, tmp_path)


def test_what_is_no_encoder_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(PerpetuneError, match=r"evaluate\.encoder\.model"):
        load_encoder(BaseParams(model="pypi:nobody", revision="1"), tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(PerpetuneError, match="the encoder is no sentence-transformers model"):
        load_encoder(BaseParams(model=f"path:{tmp_path}", revision=None), tmp_path)
