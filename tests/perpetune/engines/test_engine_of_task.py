"""Two tasks over one engine, whose versions have the same numbers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest
from aiohttp.test_utils import TestServer

from perpetune.engines.engine import Engine, NotLoaded, Overloaded
from perpetune.engines.engine_of_task import EngineOfTask
from perpetune.engines.transformers_engine import TransformersEngine
from perpetune.engines.vllm_engine import VllmEngine
from perpetune.generation.parameters import GenerationConfig
from perpetune.model.release import Release
from perpetune.params import BaseParams, ServeParams
from perpetune.records import Message
from perpetune.testing.fake_engine import FakeEngine, FakeModel
from perpetune.testing.fake_vllm import CharacterChat, FakeVllm

Make = Callable[..., Release]
SHORT = GenerationConfig(max_tokens=8)
HELLO = (Message(role="user", content="hello"),)
BASE = BaseParams(model="path:tiny", revision=None)


def both(engine: Engine, max_queue: int = 8) -> tuple[EngineOfTask, EngineOfTask]:
    return EngineOfTask(engine, "reviews", max_queue), EngineOfTask(engine, "intents", max_queue)


def test_versions_of_the_same_number_do_not_meet(release: Make) -> None:
    async def run() -> None:
        shared = FakeEngine()
        reviews, intents = both(shared)
        await reviews.load(release("1"))
        with pytest.raises(NotLoaded, match=r"^1$"):
            await intents.answer("1", HELLO, SHORT)
        await intents.load(release("1"))
        assert (await reviews.answer("1", HELLO, SHORT))[0].text == "reviews@1: hello"
        assert (await intents.answer("1", HELLO, SHORT))[0].text == "intents@1: hello"
        await reviews.unload("1")
        await reviews.close()
        assert list(shared.loaded) == ["intents@1"], "the engine of both goes on"
        assert (await intents.answer("1", HELLO, SHORT))[0].text == "intents@1: hello"

    asyncio.run(run())


def test_a_task_does_not_take_the_queue_of_the_other(release: Make) -> None:
    async def run() -> None:
        reviews, intents = both(FakeEngine(seconds=0.2), max_queue=2)
        await reviews.load(release("1"))
        await intents.load(release("1"))
        asking = [asyncio.create_task(reviews.answer("1", HELLO, SHORT)) for _ in range(2)]
        await asyncio.sleep(0.05)
        with pytest.raises(Overloaded, match="2 requests"):
            await reviews.answer("1", HELLO, SHORT)
        assert len(await intents.answer("1", HELLO, SHORT)) == 1
        await asyncio.gather(*asking)
        assert len(await reviews.answer("1", HELLO, SHORT)) == 1, "it is counted as long as it runs"

    asyncio.run(run())


def test_equal_adapters_of_two_tasks_have_two_names_in_the_model(release: Make) -> None:
    """The one of them is unloaded without the other, though their bytes and numbers are the same."""

    async def run() -> None:
        model = FakeModel()
        shared = TransformersEngine(model, BASE, ServeParams())
        reviews, intents = both(shared)
        await reviews.load(release("1"))
        await intents.load(release("1"))
        assert len(model.adapters) == 2
        await reviews.unload("1")
        assert (await intents.answer("1", HELLO, SHORT))[0].text == "hello"
        await shared.close()

    asyncio.run(run())


def test_equal_adapters_of_two_tasks_have_two_names_in_vllm(release: Make) -> None:
    async def run() -> None:
        fake = FakeVllm()
        server = TestServer(fake.app())
        await server.start_server()
        shared = VllmEngine(str(server.make_url("")), BASE, ServeParams(), CharacterChat)
        reviews, intents = both(shared)
        made = release("1", ("good", "bad"))
        (made.adapter / "adapter_config.json").write_text("{}")
        await reviews.load(made)
        await intents.load(replace(made, labels=("good", "poor")))
        names = sorted(fake.adapters)
        assert [name.rpartition("-")[0] for name in names] == ["vintents-1", "vreviews-1"]
        await reviews.unload("1")
        assert list(fake.adapters) == names[:1]
        assert (await intents.answer("1", HELLO, SHORT))[0].text == "good"
        await shared.close()
        await server.close()

    asyncio.run(run())
