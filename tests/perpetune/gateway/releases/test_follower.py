from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from waiting import eventually_async

from perpetune.errors import PerpetuneError
from perpetune.gateway.releases.follower import Follower, NoReleaseLoaded, UnknownVersion
from perpetune.gateway.telemetry.metrics import Metrics
from perpetune.generation.parameters import GenerationConfig
from perpetune.model.release import DesiredReleases, GoldenPrompt, Release, ServingFacts, Trial
from perpetune.params import ReleaseParams
from perpetune.records import Message
from perpetune.testing.fake_engine import FakeEngine
from perpetune.testing.fake_registry import FakeSource

Make = Callable[..., Release]


@pytest.fixture
def source(release: Make) -> FakeSource:
    return FakeSource([release("1"), release("2"), release("3")], champion="1")


def follower(source: FakeSource, engine: FakeEngine, poll_seconds: float = 0.02) -> Follower:
    return Follower(source, engine, Metrics(), poll_seconds)


def test_nothing_serves_until_there_is_a_champion(source: FakeSource) -> None:
    async def run() -> None:
        source.champion_version = None
        following = follower(source, FakeEngine())
        state = await following.refresh_now()
        assert (state.serving, state.registry_error, state.release_error) == (None, None, None)
        with pytest.raises(NoReleaseLoaded), following.using():
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
            await eventually_async(lambda version=version: following.state.serving == version)  # type: ignore[misc]
        await eventually_async(lambda: list(engine.loaded) == ["3"])
        polling.cancel()

    asyncio.run(run())


def test_a_model_registered_anew_is_loaded_again_under_the_same_number(source: FakeSource, release: Make) -> None:
    """Requests in flight end on the old release, and no later one gets it."""

    async def run() -> None:
        engine = FakeEngine()
        following = follower(source, engine)
        source.promote("2")
        await following.refresh_now()
        assert following.versions == ("2", "1")
        source.releases["2"] = replace(release("2"), instruction="another")
        source.registered = 2
        with following.using() as old:
            checking = asyncio.create_task(following.refresh_now())
            await asyncio.sleep(0.05)
            assert old.release.instruction != "another"
            with pytest.raises(NoReleaseLoaded), following.using():
                pass
        assert (await checking).serving == "2"
        with following.using() as new:
            assert new.release.instruction == "another"
        assert engine.loaded["2"].instruction == "another"
        assert (await following.refresh_now()).serving == "2"

    asyncio.run(run())


def test_the_new_release_is_warmed_before_it_serves(source: FakeSource) -> None:
    async def run() -> None:
        on_delta: list[str] = []

        def say(version: str, messages: object) -> str:
            on_delta.append(f"{version} warmed while {following.state.serving} serves")
            return "hello"

        following = follower(source, FakeEngine(say))
        await following.refresh_now()
        source.champion_version = "2"
        await following.refresh_now()
        assert on_delta == ["1 warmed while None serves", "2 warmed while 1 serves"]

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
        await eventually_async(lambda: set(engine.loaded) == {"2"})
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
        await eventually_async(lambda: set(engine.loaded) == {"1"})
        await asyncio.sleep(0.02)
        assert engine.loaded["1"] is first
        with following.using() as routed:
            asked = (Message(role="user", content="still there?"),)
            await engine.answer(routed.release.version, asked, GenerationConfig(max_tokens=1))

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
        assert "the registry does not answer" in str(state.registry_error)
        assert caplog.text.count("the registry cannot be read") == 1
        source.down, source.champion_version = False, "2"
        state = await following.refresh_now()
        assert (state.serving, state.registry_error) == ("2", None)

    asyncio.run(run())


def test_a_release_that_does_not_load_leaves_the_old_one(source: FakeSource) -> None:
    async def run() -> None:
        engine = FakeEngine(broken=frozenset({"2"}))
        following = follower(source, engine)
        await following.refresh_now()
        source.champion_version = "2"
        state = await following.refresh_now()
        assert (state.serving, state.champion) == ("1", "2")
        assert "version 2 cannot be served" in str(state.release_error)
        source.champion_version = "3"
        state = await following.refresh_now()
        assert (state.serving, state.release_error) == ("3", None)

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
        assert "shapes do not match" in str(state.release_error)

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


def test_a_release_that_does_not_load_for_a_week_is_still_tried(source: FakeSource) -> None:
    async def run() -> None:
        source.champion_version = "missing"
        following = follower(source, FakeEngine())
        await following.check_now()
        following._retries["missing"].failures = 7 * 24 * 60
        await following.check_now()
        source.champion_version = "1"
        assert (await following.refresh_now()).serving == "1"

    asyncio.run(run())


def with_golden(release: Release, output: str) -> Release:
    golden = GoldenPrompt(messages=(Message(role="user", content="one"),), output=output, confidence=None)
    return replace(release, evaluated=ServingFacts(golden=(golden,)))


def test_a_version_that_answers_otherwise_than_at_evaluation_is_refused(
    source: FakeSource, release: Make, release_params: ReleaseParams
) -> None:
    async def run() -> None:
        source.releases["2"] = with_golden(release("2"), "2: something else")
        source.releases["3"] = with_golden(release("3"), "3: one")
        engine = FakeEngine()
        following = Follower(source, engine, Metrics(), 0.02, release_params, 16)
        await following.refresh_now()
        source.promote("2")
        state = await following.refresh_now()
        assert (state.serving, state.champion) == ("1", "1")
        assert "version 2 was refused" in str(state.release_error)
        assert "something else" in source.refused["2"]
        assert (source.champion_version, source.previous_version) == ("1", None)
        assert set(engine.loaded) == {"1"}
        source.promote("3")
        state = await following.refresh_now()
        assert (state.serving, state.release_error) == ("3", None)

    asyncio.run(run())


def test_where_nothing_serves_a_disparity_leaves_the_alias(
    source: FakeSource, release: Make, release_params: ReleaseParams
) -> None:
    async def run() -> None:
        source.releases["1"] = with_golden(release("1"), "something else")
        following = Follower(source, FakeEngine(), Metrics(), 0.02, release_params, 16)
        state = await following.refresh_now()
        assert (state.serving, state.champion) == (None, "1")
        assert "golden prompts" in str(state.release_error)
        assert source.refused == {}

    asyncio.run(run())


def test_the_previous_champion_stays_loaded_and_serves_again_at_once(source: FakeSource) -> None:
    async def run() -> None:
        engine = FakeEngine()
        following = follower(source, engine)
        await following.refresh_now()
        for version in ("2", "3"):
            source.promote(version)
            await following.refresh_now()
        await eventually_async(lambda: set(engine.loaded) == {"2", "3"})
        done = await following.roll_back("it swears")
        assert (done.rolled_back, done.restored, following.state.serving) == ("3", "2", "2")
        assert source.champion_version == "2"
        await eventually_async(lambda: set(engine.loaded) == {"2"})
        with pytest.raises(PerpetuneError, match="no previous champion"):
            await following.roll_back("again")

    asyncio.run(run())


def test_a_gateway_that_starts_keeps_the_previous_champion_ready(source: FakeSource) -> None:
    async def run() -> None:
        source.previous_version = "2"
        engine = FakeEngine()
        await follower(source, engine).refresh_now()
        assert set(engine.loaded) == {"1", "2"}
        engine = FakeEngine(broken=frozenset({"2"}))
        state = await follower(source, engine).refresh_now()
        assert (state.serving, state.release_error) == ("1", None)

    asyncio.run(run())


def test_a_registry_read_before_a_rollback_does_not_undo_it(source: FakeSource) -> None:
    class Slow(FakeSource):
        async_wait = 0.0

        def wanted(self) -> DesiredReleases:
            seen = super().wanted()
            time.sleep(self.async_wait)
            return seen

    async def run() -> None:
        slow = Slow(source.releases.values(), champion="1")
        following = follower(slow, FakeEngine())
        await following.refresh_now()
        slow.promote("2")
        await following.refresh_now()
        slow.async_wait = 0.2
        looking = asyncio.create_task(following.refresh_now())
        await asyncio.sleep(0.05)
        await following.roll_back("it swears")
        await looking
        assert following.state.serving == "1"

    asyncio.run(run())


def test_a_canary_answers_its_share_and_the_champion_the_rest(source: FakeSource) -> None:
    async def run() -> None:
        engine = FakeEngine()
        following = follower(source, engine)
        await following.refresh_now()
        source.trial = Trial("2", "canary", 0.5)
        assert (await following.refresh_now()).trial == "2"
        routes = {}
        for number in range(60):
            with following.using(key=f"user {number}") as routed:
                routes[number] = (routed.release.version, routed.route)
        assert set(routes.values()) == {("1", "champion"), ("2", "canary")}
        for number, route in routes.items():
            with following.using(key=f"user {number}") as routed:
                assert (routed.release.version, routed.route) == route
        source.trial = None
        await following.refresh_now()
        await eventually_async(lambda: set(engine.loaded) == {"1"})

    asyncio.run(run())


@pytest.mark.parametrize("is_paired", [True, False])
def test_in_a_canary_the_champion_answers_the_same_requests_unseen(
    source: FakeSource, release_params: ReleaseParams, is_paired: bool
) -> None:
    async def run() -> None:
        params = release_params.model_copy(update={"paired": is_paired, "parity_prompts": 0})
        following = Follower(source, FakeEngine(), Metrics(), 0.02, params, 16)
        source.trial = Trial("2", "canary", 1.0)
        await following.refresh_now()
        with following.using(key="anybody") as routed:
            assert (routed.release.version, routed.route) == ("2", "canary")
            assert (routed.shadow.version if routed.shadow else None) == ("1" if is_paired else None)

    asyncio.run(run())


def test_a_shadow_never_answers(source: FakeSource) -> None:
    async def run() -> None:
        following = follower(source, FakeEngine())
        source.trial = Trial("2", "shadow", 1.0)
        await following.refresh_now()
        with following.using(key="anybody") as routed:
            assert (routed.release.version, routed.route) == ("1", "champion")
            assert routed.shadow is not None and routed.shadow.version == "2"

    asyncio.run(run())


def test_a_trial_that_cannot_be_loaded_or_is_refused_leaves_the_champion(
    source: FakeSource, release: Make, release_params: ReleaseParams
) -> None:
    async def run() -> None:
        source.releases["3"] = with_golden(release("3"), "something else")
        following = Follower(source, FakeEngine(broken=frozenset({"2"})), Metrics(), 0.02, release_params, 16)
        source.trial = Trial("2", "canary", 1.0)
        state = await following.refresh_now()
        assert (state.serving, state.trial) == ("1", None)
        assert "version 2 cannot be served" in str(state.release_error)
        source.trial = Trial("3", "canary", 1.0)
        state = await following.refresh_now()
        assert (state.serving, state.trial) == ("1", None) and source.trial is None
        assert set(source.refused) == {"3"}
        with following.using(key="anybody") as routed:
            assert routed.release.version == "1"

    asyncio.run(run())
