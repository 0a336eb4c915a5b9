from __future__ import annotations

import copy
import json
import math
from pathlib import Path

import pytest
import torch

from perpetune.generation.answer import Answer, PromptTooLong
from perpetune.inference.predictor import Predictor
from perpetune.model.adapters import trainable
from perpetune.model.base import Base
from perpetune.model.chat.chat_format import answer_tokens, prompt_tokens
from perpetune.params import LoraParams
from perpetune.records import Message

LABELS = ("blue", "green", "red")


def ask(text: str) -> tuple[Message, ...]:
    return (Message(role="system", content="which colour"), Message(role="user", content=text))


ASKED = [ask("the sky"), ask("a leaf"), ask("the fire is it ?"), ask("sea")]


def test_probabilities_are_those_of_each_label_scored_alone(tiny_base: Base) -> None:
    answers = Predictor(tiny_base, 64).answer(None, ASKED, LABELS, 4)
    for messages, answer in zip(ASKED, answers, strict=True):
        alone = [_log_probability(tiny_base, messages, label) for label in LABELS]
        total = sum(math.exp(score) for score in alone)
        assert answer.probabilities == pytest.approx(
            {label: math.exp(score) / total for label, score in zip(LABELS, alone, strict=True)}, rel=1e-4
        )
        assert answer.text == max(LABELS, key=lambda label: alone[LABELS.index(label)])
        assert answer.confidence == max((answer.probabilities or {}).values())


def test_free_text_is_the_same_alone_and_in_company(tiny_base: Base) -> None:
    predictor = Predictor(tiny_base, 128)
    together = [answer.text for answer in predictor.answer(None, ASKED, None, 6)]
    assert together == [predictor.answer(None, [messages], None, 6)[0].text for messages in ASKED]


def test_adapters_answer_beside_each_other_and_leave_the_base_as_it_was(tiny_base: Base, tmp_path) -> None:  # type: ignore[no-untyped-def]
    for name, seed in (("one", 1), ("two", 2)):
        model = trainable(
            tiny_base, "lora", LoraParams(rank=4, alpha=64, dropout=0.0, target_modules="all-linear"), seed
        )
        torch.manual_seed(seed)
        for weights in model.parameters():
            if weights.requires_grad:
                torch.nn.init.normal_(weights)
        model.save_pretrained(str(tmp_path / name))
        model.unload()  # type: ignore[operator]
    predictor = Predictor(tiny_base, 64)
    before = predictor.answer(None, ASKED, LABELS, 4)
    predictor.load_adapter("one", tmp_path / "one")
    one = predictor.answer("one", ASKED, LABELS, 4)
    predictor.load_adapter("two", tmp_path / "two")
    two = predictor.answer("two", ASKED, LABELS, 4)

    assert _probabilities(one) != _probabilities(two)
    assert _probabilities(predictor.answer("one", ASKED, LABELS, 4)) == _probabilities(one)
    assert _probabilities(predictor.answer(None, ASKED, LABELS, 4)) == _probabilities(before)
    predictor.unload_adapter("one")
    assert _probabilities(predictor.answer("two", ASKED, LABELS, 4)) == _probabilities(two)
    predictor.unload_adapter("two")
    assert _probabilities(predictor.answer(None, ASKED, LABELS, 4)) == _probabilities(before)


def test_a_prompt_beyond_the_context_is_refused(tiny_base: Base) -> None:
    predictor = Predictor(tiny_base, 64)
    long = ask("the " * 70)
    assert not predictor.fits(long, LABELS, 4)
    assert predictor.fits(ASKED[0], LABELS, 4)
    with pytest.raises(PromptTooLong, match="the context leaves 62"):
        predictor.answer(None, [*ASKED, long], LABELS, 4)
    with pytest.raises(PromptTooLong, match="the context leaves 44"):
        predictor.answer(None, [long], None, 20)


def _probabilities(answers: list) -> list:  # type: ignore[type-arg]
    return [answer.probabilities for answer in answers]


def _log_probability(base: Base, messages: tuple[Message, ...], label: str) -> float:
    prompt, tail = prompt_tokens(base.tokenizer, messages), answer_tokens(base.tokenizer, label)
    with torch.inference_mode():
        logits = base.model(torch.tensor([prompt + tail])).logits[0].float().log_softmax(-1)
    return sum(float(logits[len(prompt) - 1 + step, token]) for step, token in enumerate(tail))


def test_a_model_trained_in_full_answers_beside_the_base(tiny_base: Base, tmp_path: Path) -> None:
    changed = copy.deepcopy(tiny_base.model)
    for weights in changed.parameters():
        weights.data.mul_(-1)
    changed.save_pretrained(tmp_path)
    expected = Predictor(Base(changed, tiny_base.tokenizer, ""), 64).answer(None, ASKED, LABELS, 4)

    predictor = Predictor(tiny_base, 64)
    before = predictor.answer(None, ASKED, LABELS, 4)
    predictor.load_adapter("whole", tmp_path)
    assert said(predictor.answer("whole", ASKED, LABELS, 4)) == said(expected) != said(before)
    texts = [answer.text for answer in predictor.answer("whole", ASKED, None, 4)]
    assert texts == [a.text for a in Predictor(Base(changed, tiny_base.tokenizer, ""), 64).answer(None, ASKED, None, 4)]
    predictor.unload_adapter("whole")
    assert said(predictor.answer(None, ASKED, LABELS, 4)) == said(before)


def said(answers: list[Answer]) -> list[dict[str, float]]:
    return [dict(answer.probabilities or {}) for answer in answers]


def test_each_prompt_offers_its_own_tools(tiny_base: Base) -> None:
    base = copy.deepcopy(tiny_base)
    base.tokenizer.chat_template = (
        "{% for tool in tools or [] %}{{ tool.function.name }} {% endfor %}"
        "{% for message in messages %}{{ message.content }} {% endfor %}"
    )
    tools = json.dumps([{"type": "function", "function": {"name": "which colour"}}] * 3)
    predictor = Predictor(base, 64)
    bare, offered = predictor.answer(None, ASKED[:1] * 2, None, 2, tools=[None, tools])

    assert offered.prompt_tokens > bare.prompt_tokens
    assert predictor.fits(ASKED[0], None, 2)
    many = json.dumps(json.loads(tools) * base.model.config.max_position_embeddings)
    assert not predictor.fits(ASKED[0], None, 2, tools=many)
