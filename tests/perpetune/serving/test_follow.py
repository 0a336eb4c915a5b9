from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from perpetune.generation import Generation
from perpetune.records import Message
from perpetune.release import Release
from perpetune.serving.fake_engine import FakeEngine
from perpetune.serving.fake_source import FakeSource
from perpetune.serving.follow import Follower, NothingServed, UnknownVersion
from perpetune.serving.metrics import Metrics

Make = Callable[..., Release]


@pytest.fixture
def source(release: Make) -> FakeSource:
    return FakeSource([release("1"), release("2"), release("3")], champion="1")


def follower(source: FakeSource, engine: FakeEngine, poll_seconds: float = 0.02) -> Follower:
    return Follower(source, engine, Metrics(), poll_seconds)


async def until(happened: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not happened():
            await asyncio.sleep(0.005)


def test_nothing_serves_until_there_is_a_champion(source: FakeSource) -> None:
    async def run() -> None:
        source.champion_version = None
        following = follower(source, FakeEngine())
        state = await following.refresh_now()
        assert (state.serving, state.registry_trouble, state.release_trouble) == (None, None, None)
        with pytest.raises(NothingServed), following.using():
            pass
        source.champion_version = "1"
        assert (await following.refresh_now()).serving == "1"

    asyncio.run(run())


def test_polling_follows_the_alias(source: FakeSource) -> None:
    async def run() -> None:
        engine = FakeEngine()
        following = follower(source, engine)
        polling = asyncio.create_task(following.run())
        for version in ("1", "2", "1", "3"):
            source.champion_version = version
            await until(lambda version=version: following.state.serving == version)  # type: ignore[misc]
        await until(lambda: list(engine.loaded) == ["3"])
        polling.cancel()

    asyncio.run(run())


def test_the_new_release_is_warmed_before_it_serves(source: FakeSource) -> None:
    async def run() -> None:
        heard: list[str] = []

        def say(version: str, messages: object) -> str:
            heard.append(f"{version} warmed while {following.state.serving} serves")
            return "hello"

        following = follower(source, FakeEngine(say))
        await following.refresh_now()
        source.champion_version = "2"
        await following.refresh_now()
        assert heard == ["1 warmed while None serves", "2 warmed while 1 serves"]

    asyncio.run(run())


def test_the_old_release_ends_with_its_last_request(source: FakeSource) -> None:
    async def run() -> None:
        engine = FakeEngine()
        following = follower(source, engine)
        await following.refresh_now()
        with following.using() as old:
            source.champion_version = "2"
            await following.refresh_now()
            with following.using() as new, following.using("1") as pinned:
                assert (old.release.version, new.release.version, pinned.release.version) == ("1", "2", "1")
            await asyncio.sleep(0.02)
            assert set(engine.loaded) == {"1", "2"}
        await until(lambda: set(engine.loaded) == {"2"})
        with pytest.raises(UnknownVersion), following.using("1"):
            pass

    asyncio.run(run())


def test_going_back_to_a_release_that_is_ending_needs_no_loading(source: FakeSource) -> None:
    async def run() -> None:
        engine = FakeEngine()
        following = follower(source, engine)
        await following.refresh_now()
        first = engine.loaded["1"]
        with following.using("1"):
            source.champion_version = "2"
            await following.refresh_now()
            source.champion_version = "1"
            assert (await following.refresh_now()).serving == "1"
        await until(lambda: set(engine.loaded) == {"1"})
        await asyncio.sleep(0.02)
        assert engine.loaded["1"] is first
        with following.using() as routed:
            asked = (Message(role="user", content="still there?"),)
            await engine.answer(routed.release.version, asked, Generation(max_tokens=1))

    asyncio.run(run())


def test_a_registry_that_is_down_changes_nothing_and_is_logged_once(
    source: FakeSource, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        following = follower(source, FakeEngine())
        await following.refresh_now()
        source.down = True
        for _ in range(3):
            state = await following.refresh_now()
        assert state.serving == "1"
        assert "the registry does not answer" in str(state.registry_trouble)
        assert caplog.text.count("the registry cannot be asked") == 1
        source.down, source.champion_version = False, "2"
        state = await following.refresh_now()
        assert (state.serving, state.registry_trouble) == ("2", None)

    asyncio.run(run())


def test_a_release_that_does_not_load_leaves_the_old_one(source: FakeSource) -> None:
    async def run() -> None:
        engine = FakeEngine(broken=frozenset({"2"}))
        following = follower(source, engine)
        await following.refresh_now()
        source.champion_version = "2"
        state = await following.refresh_now()
        assert (state.serving, state.champion) == ("1", "2")
        assert "version 2 cannot be served" in str(state.release_trouble)
        source.champion_version = "3"
        state = await following.refresh_now()
        assert (state.serving, state.release_trouble) == ("3", None)

    asyncio.run(run())


def test_a_release_that_cannot_answer_is_unloaded_again(source: FakeSource) -> None:
    async def run() -> None:
        def say(version: str, messages: object) -> str:
            if version == "2":
                raise RuntimeError("shapes do not match")
            return "fine"

        engine = FakeEngine(say)
        following = follower(source, engine)
        await following.refresh_now()
        source.champion_version = "2"
        state = await following.refresh_now()
        assert (state.serving, set(engine.loaded)) == ("1", {"1"})
        assert "shapes do not match" in str(state.release_trouble)

    asyncio.run(run())


def test_a_release_that_does_not_load_is_tried_less_and_less_often(source: FakeSource) -> None:
    async def run() -> None:
        tries: list[str] = []

        def say(version: str, messages: object) -> str:
            tries.append(version)
            raise RuntimeError("no")

        following = follower(source, FakeEngine(say), poll_seconds=0.01)
        polling = asyncio.create_task(following.run())
        await asyncio.sleep(0.3)
        polling.cancel()
        assert 2 <= len(tries) <= 7

    asyncio.run(run())
