from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from perpetune.evaluation.forgetting import forgetting, general_texts, tokenize_texts
from perpetune.inference.predictor import Predictor
from perpetune.model.base import Base
from perpetune.params import EvaluateParams

PARAMS = EvaluateParams(
    max_new_tokens=8,
    batch_tokens=64,
    few_shot_examples=0,
    recorded=None,
    dollars_per_hour=3.6,
    confidence=0.95,
    bootstrap_samples=200,
    seed=7,
)


def test_the_slice_has_prose_instructions_code_sums_and_languages() -> None:
    texts = general_texts()
    assert {each.kind for each in texts} >= {"prose", "facts", "arithmetic", "code", "language", "instruction"}
    assert len({each.text for each in texts}) == len(texts) >= 40
    assert all((each.prompt is not None) == (each.kind == "instruction") for each in texts)


def test_of_an_instruction_only_the_answer_is_scored_and_what_does_not_fit_is_left_out(tiny_base: Base) -> None:
    texts = tokenize_texts(tiny_base.tokenizer, general_texts(), 64)
    assert 0 < len(texts) <= len(general_texts())
    assert all(len(text.tokens) <= 64 for text in texts)
    end = tiny_base.tokenizer.eos_token_id
    answers = [text for text in texts if text.tokens[-1] == end]
    assert answers and all(text.scored_from > 1 for text in answers)


def test_the_same_model_has_forgotten_nothing(tiny_base: Base) -> None:
    predictor = Predictor(tiny_base, 64)
    losses = predictor.mean_losses(None, tokenize_texts(tiny_base.tokenizer, general_texts(), predictor.context))
    found = forgetting(losses, losses, PARAMS)
    assert (found.low, found.value, found.high) == (0.0, 0.0, 0.0)


@given(st.lists(st.tuples(st.floats(0, 9), st.floats(0, 9)), min_size=2, max_size=20), st.floats(0.01, 2))
def test_a_greater_loss_is_more_forgetting(pairs: list[tuple[float, float]], more: float) -> None:
    before, after = zip(*pairs, strict=True)
    found = forgetting(before, after, PARAMS)
    worse = forgetting(before, [each + more for each in after], PARAMS)
    assert found.low <= found.value <= found.high
    assert worse.value > found.value and worse.low > found.low
