from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from perpetune.engines.engine import NotLoaded, Overloaded, Unsupported
from perpetune.engines.transformers_engine import TransformersEngine
from perpetune.errors import PerpetuneError
from perpetune.generation.answer import Answer
from perpetune.generation.parameters import Delta, GenerationConfig
from perpetune.model.release import Release
from perpetune.params import BaseParams, ServeParams
from perpetune.records import Message
from perpetune.testing.fake_engine import FakeModel

Make = Callable[..., Release]
BASE = BaseParams(model="path:tiny", revision=None)


def ask(engine: TransformersEngine, text: str, version: str = "1", max_tokens: int = 8) -> asyncio.Task[Answer]:
    async def answer() -> Answer:
        (only,) = await engine.answer(
            version, (Message(role="user", content=text),), GenerationConfig(max_tokens=max_tokens)
        )
        return only

    return asyncio.create_task(answer())


async def serving(model: FakeModel, params: ServeParams, *releases: Release) -> TransformersEngine:
    engine = TransformersEngine(model, BASE, params)
    for one in releases:
        await engine.load(one)
    return engine


def patient(params: ServeParams) -> ServeParams:
    return params.model_copy(update={"max_wait_ms": 200})


def test_requests_share_batches_of_one_adapter(params: ServeParams, release: Make) -> None:
    async def run() -> None:
        model = FakeModel()
        engine = await serving(model, patient(params), release("1", ("good", "bad")), release("2", ("bad", "good")))
        tasks = [ask(engine, str(number), version="12"[number % 2], max_tokens=number + 1) for number in range(8)]
        answers = await asyncio.gather(*tasks)
        assert [answer.text for answer in answers] == ["good", "bad"] * 4
        assert [size for _, size in model.batches] == [4, 4]
        assert {name for name, _ in model.batches} == set(model.adapters)
        await engine.close()

    asyncio.run(run())


def test_a_single_request_waits_at_most_max_wait_ms(params: ServeParams, release: Make) -> None:
    async def run() -> None:
        engine = await serving(FakeModel(), params, release("1"))
        async with asyncio.timeout(1):
            assert (await ask(engine, "hello there")).text == "hello there"
        await engine.close()

    asyncio.run(run())


def test_free_text_ends_at_each_requests_max_tokens(params: ServeParams, release: Make) -> None:
    async def run() -> None:
        model = FakeModel()
        engine = await serving(model, patient(params), release("1"))
        tasks = [ask(engine, "one two three", max_tokens=tokens) for tokens in (1, 3, 1)]
        answers = await asyncio.gather(*tasks)
        assert [answer.text for answer in answers] == ["one", "one two three", "one"]
        assert [answer.finish_reason for answer in answers] == ["length", "stop", "length"]
        assert [size for _, size in model.batches] == [3]
        await engine.close()

    asyncio.run(run())


def test_deltas_arrive_on_the_event_loop(params: ServeParams, release: Make) -> None:
    async def run() -> None:
        engine = await serving(FakeModel(), params, release("1"), release("2", ("good", "bad")))
        deltas: list[Delta] = []
        threads = set()

        def on_delta(delta: Delta) -> None:
            deltas.append(delta)
            threads.add(threading.current_thread())

        twice = GenerationConfig(max_tokens=2, n=2)
        answers = await engine.answer("1", (Message(role="user", content="one two three"),), twice, on_delta)
        assert [answer.text for answer in answers] == ["one two"] * 2
        assert [(delta.index, delta.text) for delta in deltas] == [(0, "one"), (1, "one"), (0, " two"), (1, " two")]
        deltas.clear()
        answers = await engine.answer("2", (Message(role="user", content="judge"),), twice, on_delta)
        assert [answer.text for answer in answers] == ["good"] * 2
        assert [(delta.index, delta.text) for delta in deltas] == [(0, "good"), (1, "good")]
        assert threads == {threading.current_thread()}
        await engine.close()

    asyncio.run(run())


def test_requests_join_what_is_being_written_and_leave_it_when_given_up(params: ServeParams, release: Make) -> None:
    async def run() -> None:
        model = FakeModel()
        engine = await serving(model, params, release("1"))
        said = asyncio.Event()
        endless = " ".join(["word"] * 1_000_000)
        long = GenerationConfig(max_tokens=1_000_000)
        asked = (Message(role="user", content=endless),)
        first = asyncio.create_task(engine.answer("1", asked, long, lambda delta: said.set()))
        await said.wait()
        async with asyncio.timeout(5):
            assert (await ask(engine, "short")).text == "short"
            assert not first.done(), "the short one did not wait for the long one"
            first.cancel()
            await asyncio.wait([first])
            await engine.close()  # which waits for the model's thread
        assert [size for _, size in model.batches] == [1, 1]

    asyncio.run(run())


def test_a_version_that_waits_has_its_turn_before_others_join(params: ServeParams, release: Make) -> None:
    async def run() -> None:
        steps = threading.Semaphore(0)
        model = FakeModel(lambda: steps.acquire(timeout=5))
        engine = await serving(model, params, release("1"), release("2"))
        tasks = [ask(engine, "one two three")]
        await asyncio.sleep(0.05)  # it is being written by now
        tasks += [ask(engine, "other", version="2"), ask(engine, "late")]
        await asyncio.sleep(0)
        steps.release(3)
        await asyncio.gather(*tasks)
        first, second, third = (name for name, _ in model.batches)
        assert first == third != second
        await engine.close()

    asyncio.run(run())


def test_what_this_engine_cannot_do_is_refused(params: ServeParams, release: Make) -> None:
    async def run() -> None:
        engine = await serving(FakeModel(), params, release("1"), release("2", ("good", "bad")))
        asked = (Message(role="user", content="hello"),)
        for version, generation, param in [
            ("1", GenerationConfig(8, tool_choice='"required"'), "tool_choice"),
            ("1", GenerationConfig(8, tool_choice='{"type": "function", "function": {"name": "look"}}'), "tool_choice"),
            ("2", GenerationConfig(8, top_logprobs=0), "logprobs"),
            ("2", GenerationConfig(8, json_schema="{}"), "response_format"),
        ]:
            with pytest.raises(Unsupported) as caught:
                await engine.answer(version, asked, generation)
            assert caught.value.param == param
        assert await engine.answer("1", asked, GenerationConfig(8, tool_choice="auto"))
        await engine.close()

    asyncio.run(run())


def test_a_full_queue_refuses_at_once(params: ServeParams, release: Make) -> None:
    async def run() -> None:
        gate = threading.Event()
        engine = await serving(FakeModel(gate.wait), params, release("1"))
        first = ask(engine, "first")
        await asyncio.sleep(0.05)  # it is being computed by now
        waiting = [ask(engine, "waiting") for _ in range(params.max_queue)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await ask(engine, "too many")
        gate.set()
        assert {answer.text for answer in await asyncio.gather(first, *waiting)} == {"first", "waiting"}
        await engine.close()

    asyncio.run(run())


def test_a_request_that_is_given_up_leaves_the_queue(params: ServeParams, release: Make) -> None:
    async def run() -> None:
        gate = threading.Event()
        model = FakeModel(gate.wait)
        engine = await serving(model, params, release("1"), release("2"))
        begun, waiting = ask(engine, "begun"), ask(engine, "a b", version="2")
        await asyncio.sleep(0.05)
        for task in (begun, waiting):
            task.cancel()
        await asyncio.wait([begun, waiting])
        gate.set()
        assert (await ask(engine, "next")).text == "next"
        assert [size for _, size in model.batches] == [1, 1], "what was given up before its turn is not computed"
        await engine.close()

    asyncio.run(run())


def test_one_request_that_breaks_the_model_fails_no_other(params: ServeParams, release: Make) -> None:
    async def run() -> None:
        engine = await serving(FakeModel(), patient(params), release("1"))
        good, bad, other = await asyncio.gather(
            *(ask(engine, text) for text in ("good", "break", "other")), return_exceptions=True
        )
        assert isinstance(bad, RuntimeError)
        assert [answer.text for answer in (good, other) if isinstance(answer, Answer)] == ["good", "other"]
        await engine.close()

    asyncio.run(run())


def test_adapters_are_named_by_what_they_hold(params: ServeParams, release: Make) -> None:
    async def run() -> None:
        model = FakeModel()
        engine = await serving(model, params, release("1"))
        [before] = model.adapters
        await engine.unload("1")
        assert not model.adapters
        with pytest.raises(NotLoaded):
            await ask(engine, "hello")
        changed = release("1")
        (changed.adapter / "adapter_model.safetensors").write_text("other weights")
        await engine.load(changed)
        [after] = model.adapters
        assert before != after
        assert "." not in after, "PyTorch refuses dots in the names of modules"
        await engine.close()

    asyncio.run(run())


def test_a_release_of_another_base_is_refused(params: ServeParams, release: Make) -> None:
    async def run() -> None:
        engine = await serving(FakeModel(), params)
        with pytest.raises(PerpetuneError, match="hf:other/base main, but path:tiny is loaded"):
            await engine.load(release("1", base=BaseParams(model="hf:other/base", revision="main")))
        await engine.close()

    asyncio.run(run())
