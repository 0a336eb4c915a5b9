from __future__ import annotations

import numpy as np
import pytest

from perpetune.classifiers.temperature import fit_temperature
from perpetune.classifiers.temperature_scaling import scale_temperature
from perpetune.generation.answer import Answer

LABELS = ("bad", "fair", "good")


def answers_of(truths: np.ndarray, sharpness: float) -> tuple[list[Answer], list[str]]:
    """Rows whose labels are drawn from `truths` (rows, labels), and answers that overstate them by `sharpness`."""
    draw = np.random.default_rng(3)
    wanted = [str(draw.choice(LABELS, p=row)) for row in truths]
    stated = truths**sharpness
    stated /= stated.sum(axis=1, keepdims=True)
    answers = [
        Answer(
            text=LABELS[int(row.argmax())],
            confidence=float(row.max()),
            probabilities=dict(zip(LABELS, row.tolist(), strict=True)),
            prompt_tokens=1,
            completion_tokens=1,
            finish_reason="stop",
            seconds=0.0,
        )
        for row in stated
    ]
    return answers, wanted


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0])
def test_the_temperature_undoes_over_and_underconfidence(sharpness: float) -> None:
    answers, wanted = answers_of(np.random.default_rng(1).dirichlet(np.ones(3), 4000), sharpness)
    temperature = fit_temperature(answers, wanted)
    assert temperature == pytest.approx(sharpness, rel=0.1)
    told = [scale_temperature(answer, temperature) for answer in answers]
    right = [answer.text == label for answer, label in zip(told, wanted, strict=True)]
    assert np.mean([answer.confidence for answer in told]) == pytest.approx(np.mean(right), abs=0.02)


def test_few_rows_and_free_text_leave_confidence_as_it_is() -> None:
    answers, wanted = answers_of(np.random.default_rng(1).dirichlet(np.ones(3), 19), 3.0)
    assert fit_temperature(answers, wanted) == 1.0
    assert fit_temperature([], []) == 1.0


def test_a_model_that_is_always_right_and_sure_stays_sure() -> None:
    certain = np.eye(3)[np.arange(60) % 3] * 0.98 + 0.02 / 3
    answers, _ = answers_of(certain, 1.0)
    temperature = fit_temperature(answers, [answer.text for answer in answers])
    assert 0.05 <= temperature < 1
