from __future__ import annotations

from pathlib import Path

import pytest
import torch

from perpetune.inference.likelihood import ScoredText
from perpetune.inference.predictor import Predictor
from perpetune.model.base import Base

TEXTS = [ScoredText((2, 3, 4, 5, 6), 1), ScoredText((2, 3, 4, 9, 10, 11), 4), ScoredText((7, 8), 1)]


def alone(model: torch.nn.Module, text: ScoredText) -> float:
    with torch.inference_mode():
        told = model(torch.tensor([text.tokens])).logits[0].log_softmax(-1)
    scored = [
        -float(told[position - 1, text.tokens[position]]) for position in range(text.scored_from, len(text.tokens))
    ]
    return sum(scored) / len(scored)


@pytest.mark.parametrize("pass_tokens", [4, 1000])
def test_losses_are_those_of_each_text_alone(tiny_base: Base, pass_tokens: int) -> None:
    found = Predictor(tiny_base, pass_tokens).mean_losses(None, TEXTS)
    assert found == pytest.approx([alone(tiny_base.model, text) for text in TEXTS], rel=1e-4)


def test_a_fully_trained_model_is_scored_with_its_weights(tiny_base: Base, tmp_path: Path) -> None:
    predictor = Predictor(tiny_base, 64)
    before = predictor.mean_losses(None, TEXTS)
    other = type(tiny_base.model)(tiny_base.model.config)
    other.save_pretrained(tmp_path)
    predictor.load_adapter("whole", tmp_path)
    expected = [alone(other.eval(), text) for text in TEXTS]
    assert predictor.mean_losses("whole", TEXTS) == pytest.approx(expected, rel=1e-4)
    assert predictor.mean_losses(None, TEXTS) == pytest.approx(before)
