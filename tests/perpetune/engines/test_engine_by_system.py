"""Versions of the three systems, each answered by the engine of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from perpetune.classifiers.linear import linear_model, save_linear_model
from perpetune.engines.engine import NotLoaded, Unsupported
from perpetune.engines.engine_by_system import EngineBySystem
from perpetune.engines.linear_engine import LinearEngine
from perpetune.engines.transformers_engine import TransformersEngine
from perpetune.errors import PerpetuneError
from perpetune.generation.parameters import Delta, GenerationConfig
from perpetune.model.release import Release, System
from perpetune.params import BaseParams, ServeParams
from perpetune.records import Message
from perpetune.testing.fake_engine import FakeEngine, FakeModel

Make = Callable[..., Release]
BASE = BaseParams(model="path:tiny", revision=None)
SHORT = GenerationConfig(max_tokens=8)
LABELS = ("delivery", "money")


def said(*texts: str) -> tuple[Message, ...]:
    return tuple(Message(role="user", content=text) for text in texts)


@pytest.fixture
def linear(release: Make) -> Release:
    model = linear_model(1).fit(["my parcel", "a refund", "the parcel", "refund it"], [*LABELS, *LABELS])
    made = replace(release("3", LABELS), system="linear")
    save_linear_model(made.adapter, model)
    return made


def test_each_version_goes_to_the_engine_of_its_system(release: Make) -> None:
    async def run() -> None:
        base, linear = FakeEngine(), FakeEngine()
        engine = EngineBySystem({"tuned": base, "prompted": base, "linear": linear})
        systems: dict[str, System] = {"1": "prompted", "2": "tuned", "3": "linear"}
        for version, system in systems.items():
            await engine.load(replace(release(version), system=system))
        assert (list(base.loaded), list(linear.loaded)) == (["1", "2"], ["3"])
        for version in ("3", "1", "2"):
            assert (await engine.answer(version, said("hello"), SHORT))[0].text == f"{version}: hello"
        await engine.unload("3")
        assert linear.loaded == {}
        with pytest.raises(NotLoaded):
            await engine.answer("3", said("hello"), SHORT)
        await engine.close()
        assert base.loaded == {}

    asyncio.run(run())


def test_what_does_not_load_is_not_there(release: Make, tmp_path: Path) -> None:
    async def run() -> None:
        engine = EngineBySystem({"tuned": FakeEngine(broken=frozenset({"2"})), "linear": LinearEngine(tmp_path)})
        with pytest.raises(PerpetuneError):
            await engine.load(release("2"))
        with pytest.raises(PerpetuneError, match="the linear model cannot be read"):
            await engine.load(replace(release("3", LABELS), system="linear"))
        for version in ("2", "3"):
            with pytest.raises(NotLoaded):
                await engine.answer(version, said("hello"), SHORT)

    asyncio.run(run())


def test_a_linear_model_answers_the_last_user_message(linear: Release, tmp_path: Path) -> None:
    async def run() -> None:
        engine = LinearEngine(tmp_path)
        await engine.load(linear)
        deltas: list[Delta] = []
        asked = (*said("a refund"), Message(role="assistant", content="money"), *said("where is the parcel"))
        answers = await engine.answer("3", asked, replace(SHORT, n=2), deltas.append)
        assert [answer.text for answer in answers] == ["delivery"] * 2
        assert deltas == [Delta(0, "delivery"), Delta(1, "delivery")]
        assert answers[0].probabilities is not None and set(answers[0].probabilities) == set(LABELS)
        assert (answers[0].prompt_tokens, answers[0].completion_tokens) == (0, 0)
        for refused in ({"top_logprobs": 1}, {"json_schema": "{}"}, {"tool_choice": '"required"'}):
            with pytest.raises(Unsupported):
                await engine.answer("3", asked, replace(SHORT, **refused))
        await engine.unload("3")
        with pytest.raises(NotLoaded):
            await engine.answer("3", asked, SHORT)

    asyncio.run(run())


def test_a_prompted_version_asks_the_base_beside_adapters(params: ServeParams, release: Make) -> None:
    async def run() -> None:
        model = FakeModel()
        engine = TransformersEngine(model, BASE, params)
        await engine.load(replace(release("1", ("good", "bad")), system="prompted"))
        await engine.load(release("2"))
        assert len(model.adapters) == 1, "the base needs none"
        assert (await engine.answer("1", said("well?"), SHORT))[0].text == "good"
        assert (await engine.answer("2", said("well then"), SHORT))[0].text == "well then"
        assert [adapter for adapter, _ in model.batches] == [None, *model.adapters]
        await engine.unload("1")
        with pytest.raises(NotLoaded):
            await engine.answer("1", said("well?"), SHORT)
        with pytest.raises(PerpetuneError, match="needs the base model path:other"):
            await engine.load(
                replace(release("4", base=BaseParams(model="path:other", revision=None)), system="prompted")
            )
        await engine.close()

    asyncio.run(run())
