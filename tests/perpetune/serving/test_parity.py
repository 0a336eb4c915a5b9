from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from perpetune.answer import Answer
from perpetune.generation import Generation, Hear
from perpetune.params import ReleaseParams
from perpetune.records import Message
from perpetune.release import Evaluated, Golden, Release
from perpetune.serving.engine import Overloaded
from perpetune.serving.fake_engine import FakeEngine
from perpetune.serving.parity import Disparity, Parity, alike, require_parity

Make = Callable[..., Release]
LABELS = ("bad", "good")


def golden(text: str, output: str, confidence: float | None = None) -> Golden:
    return Golden(messages=(Message(role="user", content=text),), output=output, confidence=confidence)


def answer(text: str, probability: float) -> Answer:
    other = next(label for label in LABELS if label != text)
    return Answer(
        text=text,
        confidence=probability,
        probabilities={text: probability, other: 1 - probability},
        prompt_tokens=1,
        completion_tokens=1,
        finish_reason="stop",
        seconds=0.0,
    )


def check(engine: FakeEngine, release: Release, params: ReleaseParams) -> Parity:
    async def run() -> Parity:
        await engine.load(release)
        return await require_parity(engine, release, params, 16)

    return asyncio.run(run())


def test_the_same_answers_pass_and_others_are_told(release: Make, release_params: ReleaseParams) -> None:
    prompts = tuple(golden(text, f"1: {text}") for text in ("one", "two", "three"))
    asked = replace(release("1"), evaluated=Evaluated(golden=prompts))
    assert check(FakeEngine(), asked, release_params) == Parity(3, 3, None)
    other = replace(asked, evaluated=Evaluated(golden=(*prompts, golden("four", "something else"))))
    with pytest.raises(Disparity, match=r"1 of 4 golden prompts .* number 4: '1: four', where it was 'something else'"):
        check(FakeEngine(), other, release_params)
    most = release_params.model_copy(update={"parity_share": 0.75})
    assert check(FakeEngine(), other, most).alike == 3


def test_a_release_without_golden_prompts_passes(release: Make, release_params: ReleaseParams) -> None:
    assert check(FakeEngine(), release("1"), release_params) == Parity(0, 0, None)


@pytest.mark.parametrize(
    ("given", "same"),
    [
        (answer("good", 0.90), True),
        (answer("good", 0.86), True),
        (answer("good", 0.80), False),
        (answer("good", 0.99), False),
        (answer("bad", 0.90), False),
    ],
)
def test_a_label_needs_about_the_confidence_that_was_recorded(given: Answer, same: bool) -> None:
    assert alike(golden("it", "good", 0.90), given, 0.05) is same


def test_another_label_passes_at_a_tie_alone() -> None:
    assert alike(golden("it", "good", 0.51), answer("bad", 0.51), 0.05)
    assert not alike(golden("it", "good", 0.56), answer("bad", 0.54), 0.05)


def test_a_busy_engine_is_asked_again(release: Make, release_params: ReleaseParams) -> None:
    class Busy(FakeEngine):
        refusals = 3

        async def answer(
            self, version: str, messages: Sequence[Message], generation: Generation, hear: Hear | None = None
        ) -> tuple[Answer, ...]:
            if self.refusals:
                self.refusals -= 1
                raise Overloaded(9, retry_after=0.01)
            return await super().answer(version, messages, generation, hear)

    asked = replace(release("1"), evaluated=Evaluated(golden=(golden("one", "1: one"), golden("two", "1: two"))))
    assert check(Busy(), asked, release_params).alike == 2


def test_nothing_is_being_answered_once_one_prompt_failed(release: Make, release_params: ReleaseParams) -> None:
    async def run() -> None:
        def say(version: str, messages: Sequence[Message]) -> str:
            if messages[-1].content == "break":
                raise RuntimeError("shapes do not match")
            return "fine"

        engine = FakeEngine(say, seconds=0.01)
        prompts = tuple(golden(text, "fine") for text in ("break", "one", "two", "three", "four"))
        asked = replace(release("1"), evaluated=Evaluated(golden=prompts))
        await engine.load(asked)
        with pytest.raises(RuntimeError, match="shapes"):
            await require_parity(engine, asked, release_params, 16)
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(run())
