"""Replicas of a server: every one has every release, the least busy answers, and one that dies costs no request."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing
from socket import socket

import pytest
from aiohttp import web
from waiting import eventually_async

from perpetune.engines.engine import EngineDown, NotLoaded, Overloaded
from perpetune.engines.replicated_engine import ReplicatedEngine
from perpetune.engines.vllm_engine import VllmEngine
from perpetune.errors import PerpetuneError
from perpetune.generation.parameters import Delta, GenerationConfig
from perpetune.model.release import Release
from perpetune.params import BaseParams, ServeParams
from perpetune.records import Message
from perpetune.testing.fake_engine import FakeEngine
from perpetune.testing.fake_vllm import CharacterChat, FakeVllm

Make = Callable[..., Release]
BASE = BaseParams(model="path:tiny", revision=None)
ASKED = (Message(role="user", content="hello"),)
SHORT = GenerationConfig(max_tokens=8)


class DownEngine(FakeEngine):
    """A replica that answers nothing until `up`."""

    up = False

    async def load(self, release: Release) -> None:
        if not self.up:
            raise EngineDown("it does not answer")
        await super().load(release)


async def ask(engine: ReplicatedEngine, version: str = "1") -> str:
    return (await engine.answer(version, ASKED, SHORT))[0].text


def test_every_replica_gets_every_release_and_the_least_busy_answers(release: Make) -> None:
    async def run() -> None:
        replicas = [FakeEngine(seconds=0.02) for _ in range(3)]
        engine = ReplicatedEngine(replicas)
        for version in ("1", "2"):
            await engine.load(release(version))
        assert [list(replica.loaded) for replica in replicas] == [["1", "2"]] * 3
        await asyncio.gather(*(ask(engine, version) for version in "121212"))
        assert [len(replica.asked) for replica in replicas] == [2, 2, 2]
        await engine.unload("1")
        assert [list(replica.loaded) for replica in replicas] == [["2"]] * 3
        with pytest.raises(NotLoaded):
            await ask(engine, "1")
        await engine.close()
        assert not any(replica.loaded for replica in replicas)

    asyncio.run(run())


def test_a_replica_that_fails_costs_no_request_and_rests(release: Make) -> None:
    async def run() -> None:
        broken, whole = FakeEngine(fault=EngineDown("gone"), fails_after=0), FakeEngine()
        engine = ReplicatedEngine([broken, whole])
        await engine.load(release("1"))
        assert [await ask(engine) for _ in range(5)] == ["1: hello"] * 5
        assert (len(broken.asked), len(whole.asked)) == (1, 5)
        await engine.close()

    asyncio.run(run())


@pytest.mark.parametrize("fault", [EngineDown("gone"), Overloaded(3, 1.0)])
def test_when_all_fail_the_last_fault_is_the_answer(release: Make, fault: Exception) -> None:
    async def run() -> None:
        engine = ReplicatedEngine([FakeEngine(fault=fault, fails_after=0) for _ in range(2)])
        await engine.load(release("1"))
        with pytest.raises(type(fault)):
            await ask(engine)
        await engine.close()

    asyncio.run(run())


def test_an_answer_that_was_partly_sent_is_not_begun_again(release: Make) -> None:
    async def run() -> None:
        broken, whole = FakeEngine(fault=EngineDown("gone"), fails_after=1), FakeEngine()
        engine = ReplicatedEngine([broken, whole])
        await engine.load(release("1"))
        sent: list[Delta] = []
        with pytest.raises(EngineDown):
            await engine.answer("1", ASKED, SHORT, sent.append)
        assert len(sent) == 1 and whole.asked == []
        await engine.close()

    asyncio.run(run())


def test_a_replica_that_starts_late_gets_the_releases(release: Make) -> None:
    async def run() -> None:
        late, early = DownEngine(), FakeEngine()
        engine = ReplicatedEngine([late, early], retry_seconds=0.01)
        await engine.load(release("1"))
        await engine.load(release("2"))
        await engine.unload("1")
        assert await ask(engine, "2") == "2: hello"
        late.up = True
        await eventually_async(lambda: list(late.loaded) == ["2"])
        await asyncio.gather(*(ask(engine, "2") for _ in range(4)))
        assert late.asked
        await engine.close()

    asyncio.run(run())


def test_a_release_that_a_replica_refuses_is_on_none(release: Make) -> None:
    async def run() -> None:
        whole = FakeEngine()
        engine = ReplicatedEngine([whole, FakeEngine(broken=frozenset({"2"}))])
        await engine.load(release("1"))
        with pytest.raises(PerpetuneError, match="does not fit"):
            await engine.load(release("2"))
        assert list(whole.loaded) == ["1"]
        await engine.close()

    asyncio.run(run())


def test_without_a_replica_nothing_is_loaded(release: Make) -> None:
    async def run() -> None:
        engine = ReplicatedEngine([DownEngine(), DownEngine()], retry_seconds=0.01)
        with pytest.raises(EngineDown):
            await engine.load(release("1"))
        with pytest.raises(NotLoaded):
            await ask(engine)
        await engine.close()

    asyncio.run(run())


def test_closing_does_not_wait_for_a_replica_that_stays_down(release: Make) -> None:
    async def run() -> None:
        engine = ReplicatedEngine([DownEngine(), FakeEngine()], retry_seconds=60)
        await engine.load(release("1"))
        await asyncio.wait_for(engine.close(), 1)

    asyncio.run(run())


@asynccontextmanager
async def serving(vllm: FakeVllm, port: int) -> AsyncIterator[None]:
    runner = web.AppRunner(vllm.app(), handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield
    finally:
        await runner.cleanup()


def test_two_servers_of_vllm(release: Make, params: ServeParams) -> None:
    """One is stopped, and comes back without its adapters."""

    async def run() -> None:
        with closing(socket()) as one, closing(socket()) as two:
            for each in (one, two):
                each.bind(("127.0.0.1", 0))
            ports = [each.getsockname()[1] for each in (one, two)]
        first, second = (
            FakeVllm({"good": 0.9, "bad": 0.1}, seconds=0.01),
            FakeVllm({"good": 0.9, "bad": 0.1}, seconds=0.01),
        )
        made = release("1", ("good", "bad"))
        (made.adapter / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
        engine = ReplicatedEngine(
            [VllmEngine(f"http://127.0.0.1:{port}", BASE, params, CharacterChat) for port in ports]
        )
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(serving(first, ports[0]))
            async with serving(second, ports[1]):
                await engine.load(made)
                assert first.adapters and first.adapters == second.adapters
                assert Counter(await asyncio.gather(*(ask(engine) for _ in range(6)))) == {"good": 6}
                assert len(first.requests) == len(second.requests)
            assert [await ask(engine) for _ in range(4)] == ["good"] * 4
            empty = FakeVllm({"good": 0.9, "bad": 0.1}, seconds=0.01)
            async with serving(empty, ports[1]):
                engine._replicas[1].rests_until = 0.0
                assert await asyncio.gather(*(ask(engine) for _ in range(4))) == ["good"] * 4
                assert empty.adapters == first.adapters
            await engine.close()

    asyncio.run(run())
