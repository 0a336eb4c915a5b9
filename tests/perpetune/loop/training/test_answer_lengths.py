from __future__ import annotations

import pytest
from chat_families import family_tokenizer

from perpetune.generation.prompt_format import prompt_format
from perpetune.loop.training.answer_lengths import warnings_before_training
from perpetune.model.chat.chat_format import with_format
from perpetune.params import BaseParams, EvaluateParams, Params, TaskParams
from perpetune.records import Example


def settings(kind: str = "generation", most: int = 128, variables: dict[str, bool] | None = None) -> Params:
    return Params(
        task=TaskParams.model_validate({"name": "t", "kind": kind, "instruction": "Answer."}),
        base=BaseParams.model_validate({"model": "path:x", "chat_template_kwargs": variables or {}}),
        evaluate=EvaluateParams(max_new_tokens=most),
    )


def rows(*outputs: str) -> list[Example]:
    return [Example(input="a", output=text, id=text, group=text, source="t") for text in outputs]


def warned(family: str, params: Params, *outputs: str) -> dict[str, str]:
    chosen = prompt_format(params.base.chat_template_kwargs, None)
    return warnings_before_training(with_format(family_tokenizer(family), chosen), rows(*outputs), params)


def test_answers_that_serving_cuts_off_are_counted_with_their_end_of_turn() -> None:
    found = warned("chatml", settings(most=7), "a b c", "a b c d e f g h")
    assert found["answers_cut_off"].startswith("1 of 2 training answers are longer than evaluate.max_new_tokens (7)")
    assert "the longest has 15 tokens" in found["answers_cut_off"]
    assert warned("chatml", settings(most=6), "a b c") == {}, "three words, two spaces and the end"
    assert warned("chatml", settings("classification", most=1), "a b c") == {}, "labels are not generated"


@pytest.mark.parametrize(
    ("family", "variables", "outputs", "said"),
    [
        ("qwen3", {}, ["yes"], "reasons before it answers unless"),
        ("qwen3", {"enable_thinking": False}, ["yes"], None),
        ("qwen3", {"enable_thinking": True}, ["<think>\nlong</think>yes", "no"], "1 of 2 training answers have no reasoning"),
        ("qwen3", {}, ["<think>\nlong</think>yes"], r"set base.chat_template_kwargs: {enable_thinking: true}"),
        ("deepseek-r1", {}, ["yes"], None),
        ("deepseek-r1", {}, ["long</think>yes"], "1 of 1 training answers have reasoning"),
        ("deepseek-r1", {"enable_thinking": True}, ["long</think>yes"], None),
        ("chatml", {}, ["yes"], None),
    ],
)  # fmt: skip
def test_reasoning_and_template_belong_together(
    family: str, variables: dict[str, bool], outputs: list[str], said: str | None
) -> None:
    found = warned(family, settings(variables=variables), *outputs).get("reasoning")
    assert found is None if said is None else found is not None and said in found
