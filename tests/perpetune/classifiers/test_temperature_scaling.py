from __future__ import annotations

import math

import pytest

from perpetune.classifiers.temperature_scaling import scale_temperature
from perpetune.generation.answer import Answer


def answer_with(probabilities: dict[str, float] | None, text: str = "good") -> Answer:
    confidence = probabilities[text] if probabilities else None
    return Answer(text, confidence, probabilities, 3, 1, "stop", 0.1)


def test_it_is_the_softmax_of_the_scores_over_the_temperature() -> None:
    scores = {"good": 2.0, "bad": 0.5, "mixed": -1.0}

    def softmax(temperature: float) -> dict[str, float]:
        weights = {label: math.exp(score / temperature) for label, score in scores.items()}
        return {label: weight / sum(weights.values()) for label, weight in weights.items()}

    for temperature in (0.5, 1.0, 2.0, 7.0):
        scaled = scale_temperature(answer_with(softmax(1.0)), temperature)
        assert scaled.probabilities == pytest.approx(softmax(temperature))
        assert scaled.confidence == pytest.approx(softmax(temperature)["good"])


def test_a_sure_model_becomes_less_sure_and_stays_with_its_answer() -> None:
    scaled = scale_temperature(answer_with({"good": 0.99, "bad": 0.01}), 3.0)
    assert scaled.text == "good"
    assert scaled.confidence is not None and 0.5 < scaled.confidence < 0.99


def test_extremes_stay_probabilities() -> None:
    for temperature in (0.01, 100.0):
        scaled = scale_temperature(answer_with({"good": 1.0, "bad": 0.0}), temperature)
        assert scaled.probabilities == {"good": 1.0, "bad": 0.0}
    tiny = scale_temperature(answer_with({"good": 1e-300, "bad": 1e-301}), 0.1)
    assert tiny.probabilities is not None
    assert sum(tiny.probabilities.values()) == pytest.approx(1.0)


def test_free_text_and_temperature_one_change_nothing() -> None:
    free, sure = answer_with(None), answer_with({"good": 0.7, "bad": 0.3})
    assert scale_temperature(free, 2.0) is free
    assert scale_temperature(sure, 1.0) is sure
