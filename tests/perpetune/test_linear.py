from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.pipeline import Pipeline

from perpetune.errors import PerpetuneError
from perpetune.linear import DESCRIPTION, TENSORS, linear_answer, linear_model, load_linear_model, save_linear_model

WORDS = {"parcel": "delivery", "courier": "delivery", "refund": "money", "invoice": "money", "password": "account"}
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


@pytest.mark.parametrize("labels", [2, 3])
def test_a_model_comes_back_as_it_was_kept(labels: int, tmp_path: Path) -> None:
    model = fitted(labels)
    digest = save_linear_model(tmp_path, model)
    back = load_linear_model(tmp_path)
    assert (back.predict_proba(UNSEEN) == model.predict_proba(UNSEEN)).all()
    assert [linear_answer(back, text).probabilities for text in UNSEEN] == [
        linear_answer(model, text).probabilities for text in UNSEEN
    ]
    assert save_linear_model(tmp_path / "again", back) == digest
    assert save_linear_model(tmp_path / "other", fitted(5 - labels)) != digest


def test_what_is_no_model_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(PerpetuneError, match="no linear model can be read"):
        load_linear_model(tmp_path)
    save_linear_model(tmp_path, fitted(2))
    (tmp_path / DESCRIPTION).write_text(json.dumps({"labels": ["a"], "vectorizers": [{"terms": []}]}))
    with pytest.raises(PerpetuneError, match="no linear model can be read"):
        load_linear_model(tmp_path)
    save_linear_model(tmp_path, fitted(2))
    (tmp_path / TENSORS).write_bytes(b"\x80\x04cos\nsystem\n")
    with pytest.raises(PerpetuneError, match="no linear model can be read"):
        load_linear_model(tmp_path)
