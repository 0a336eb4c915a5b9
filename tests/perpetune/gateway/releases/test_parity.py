from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from perpetune.engines.engine import Overloaded
from perpetune.gateway.releases.parity import ParityError, ParityResult, is_match, require_parity
from perpetune.generation.answer import Answer, TokenLogprob
from perpetune.generation.parameters import GenerationConfig, OnDelta
from perpetune.model.release import GoldenPrompt, Release, ServingFacts
from perpetune.params import ReleaseParams
from perpetune.records import Message
from perpetune.testing.fake_engine import FakeEngine

Make = Callable[..., Release]
LABELS = ("bad", "good")


def golden(text: str, output: str, confidence: float | None = None) -> GoldenPrompt:
    return GoldenPrompt(messages=(Message(role="user", content=text),), output=output, confidence=confidence)


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


def check(engine: FakeEngine, release: Release, params: ReleaseParams) -> ParityResult:
    async def run() -> ParityResult:
        await engine.load(release)
        return await require_parity(engine, release, params, 16)

    return asyncio.run(run())


def test_matching_answers_pass_and_others_are_reported(release: Make, release_params: ReleaseParams) -> None:
    prompts = tuple(golden(text, f"1: {text}") for text in ("one", "two", "three"))
    asked = replace(release("1"), evaluated=ServingFacts(golden=prompts))
    assert check(FakeEngine(), asked, release_params) == ParityResult(3, 3, None)
    other = replace(asked, evaluated=ServingFacts(golden=(*prompts, golden("four", "something else"))))
    with pytest.raises(
        ParityError, match=r"1 of 4 golden prompts .* number 4: got '1: four', expected 'something else'"
    ):
        check(FakeEngine(), other, release_params)
    most = release_params.model_copy(update={"parity_rate": 0.75})
    assert check(FakeEngine(), other, most).matching == 3


def test_a_release_without_golden_prompts_passes(release: Make, release_params: ReleaseParams) -> None:
    assert check(FakeEngine(), release("1"), release_params) == ParityResult(0, 0, None)


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
    assert is_match(golden("it", "good", 0.90), given, 0.05) is same


def test_another_label_passes_at_a_tie_alone() -> None:
    assert is_match(golden("it", "good", 0.51), answer("bad", 0.51), 0.05)
    assert not is_match(golden("it", "good", 0.56), answer("bad", 0.54), 0.05)


def written(*tokens: tuple[str, dict[str, float]], finish_reason: str = "stop") -> Answer:
    """Free text of these tokens, each with the probabilities of the likeliest in its place."""
    logprobs = tuple(
        TokenLogprob(token, math.log(top[token]), tuple((each, math.log(share)) for each, share in top.items()))
        for token, top in tokens
    )
    return Answer(
        text="".join(token for token, _ in tokens),
        confidence=None,
        probabilities=None,
        prompt_tokens=1,
        completion_tokens=len(tokens),
        finish_reason=finish_reason,
        seconds=0.0,
        logprobs=logprobs,
    )


def sure(*tokens: str) -> list[tuple[str, dict[str, float]]]:
    return [(token, {token: 0.9}) for token in tokens]


@pytest.mark.parametrize(
    ("given", "same"),
    [
        (written(*sure("a", " red", " house", " by", " the", " sea")), True),
        (written(*sure("a", " red", " house"), finish_reason="length"), True),
        (written(*sure("a", " red", " house")), False),
        (written(*sure("a", " red", " house", " by", " the", " sea", " side")), False),
        (written(*sure("a"), (" blue", {" blue": 0.46, " red": 0.45}), *sure(" boat")), True),
        (written(*sure("a"), (" blue", {" blue": 0.46, " r": 0.45}), *sure(" boat")), True),
        (written(*sure("a"), (" blue", {" blue": 0.55, " red": 0.40}), *sure(" boat")), False),
        (written(*sure("a"), (" blue", {" blue": 0.46, " green": 0.45}), *sure(" boat")), False),
        (written(*sure("a"), (" blue", {" blue": 0.46}), finish_reason="length"), False),
        (written(("the", {"the": 0.46, "a": 0.44}), *sure(" boat")), True),
        (written(("the", {"the": 0.46, " a": 0.44}), *sure(" boat")), True),
        (written(("the", {"the": 0.56, " a": 0.44}), *sure(" boat")), False),
    ],
)
def test_different_text_matches_only_if_it_differs_at_a_tie(given: Answer, same: bool) -> None:
    assert is_match(golden("it", "a red house by the sea"), given, 0.05) is same


def test_tokens_that_lost_their_blank_are_found_in_the_text() -> None:
    blankless = written(("red", {"red": 0.9}), ("boat", {"boat": 0.46, "house": 0.45}))
    assert is_match(golden("it", "red house"), replace(blankless, text="red boat"), 0.05)


def test_32_tokens_are_compared_and_shown_from_the_difference(release: Make, release_params: ReleaseParams) -> None:
    engine = FakeEngine(lambda version, messages: "word " * 40 + "left")

    def against(output: str) -> Release:
        return replace(release("1"), evaluated=ServingFacts(golden=(golden("one", output),), max_tokens=64))

    assert check(engine, against("word " * 40 + "right"), release_params).matching == 1
    with pytest.raises(ParityError, match=r"number 1: got …'(word ){6}word', expected …'(word ){6}right'"):
        check(engine, against("word " * 31 + "right"), release_params)


def test_a_busy_engine_is_asked_again(release: Make, release_params: ReleaseParams) -> None:
    class Busy(FakeEngine):
        refusals = 3

        async def answer(
            self,
            version: str,
            messages: Sequence[Message],
            generation: GenerationConfig,
            on_delta: OnDelta | None = None,
        ) -> tuple[Answer, ...]:
            if self.refusals:
                self.refusals -= 1
                raise Overloaded(9, retry_after=0.01)
            return await super().answer(version, messages, generation, on_delta)

    asked = replace(release("1"), evaluated=ServingFacts(golden=(golden("one", "1: one"), golden("two", "1: two"))))
    assert check(Busy(), asked, release_params).matching == 2


def test_nothing_is_being_answered_once_one_prompt_failed(release: Make, release_params: ReleaseParams) -> None:
    async def run() -> None:
        def say(version: str, messages: Sequence[Message]) -> str:
            if messages[-1].content == "break":
                raise RuntimeError("shapes do not match")
            return "fine"

        engine = FakeEngine(say, seconds=0.01)
        prompts = tuple(golden(text, "fine") for text in ("break", "one", "two", "three", "four"))
        asked = replace(release("1"), evaluated=ServingFacts(golden=prompts))
        await engine.load(asked)
        with pytest.raises(RuntimeError, match="shapes"):
            await require_parity(engine, asked, release_params, 16)
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(run())
