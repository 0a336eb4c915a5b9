"""The engine against a small server that speaks the parts of vLLM's API that it needs."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import date
from typing import Any

import pytest
from aiohttp import web
from opentelemetry.sdk.trace import TracerProvider
from pydantic import SecretStr

from perpetune.engines.engine import EngineDown, NotLoaded, Overloaded, Unsupported
from perpetune.engines.label_logprobs import MAX_LOGPROB_TOKENS
from perpetune.engines.vllm_engine import VllmEngine
from perpetune.errors import PerpetuneError
from perpetune.generation.answer import Answer, PromptTooLong, TokenLogprob
from perpetune.generation.parameters import Delta, GenerationConfig
from perpetune.model.release import Release
from perpetune.params import BaseParams, ServeParams
from perpetune.records import Message
from perpetune.testing.fake_vllm import BASE as BASE_NAME
from perpetune.testing.fake_vllm import CharacterChat, FakeVllm, Reply, fault, rendered

BASE = BaseParams(model="path:tiny", revision=None)
ASKED = (Message(role="system", content="Judge it."), Message(role="user", content="the question"))
SHORT = GenerationConfig(max_tokens=8)


@asynccontextmanager
async def running(vllm: FakeVllm) -> AsyncIterator[str]:
    runner = web.AppRunner(vllm.app(), handler_cancellation=True, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def engine_over(vllm: FakeVllm, params: ServeParams, *releases: Release) -> AsyncIterator[VllmEngine]:
    async with running(vllm) as url:
        engine = VllmEngine(url, BASE, params, CharacterChat)
        try:
            for one in releases:
                await engine.load(one)
            yield engine
        finally:
            await engine.close()


@pytest.fixture
def adapter(release: Callable[..., Release]) -> Callable[..., Release]:
    def make(version: str = "1", labels: tuple[str, ...] | None = None, **config: object) -> Release:
        made = release(version, labels)
        (made.adapter / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", **config}))
        return made

    return make


Make = Callable[..., Release]


def choice(text: str, **more: object) -> dict[str, object]:
    return {"index": 0, "text": text, "finish_reason": "stop", **more}


def saying(*choices: dict[str, object], completion_tokens: int = 3) -> Reply:
    async def reply(_request: web.Request, _body: dict[str, Any]) -> web.Response:
        usage = {"prompt_tokens": 7, "completion_tokens": completion_tokens}
        return web.json_response({"choices": choices, "usage": usage})

    return reply


def streaming(*events: object, end: bool = True) -> Reply:
    async def reply(request: web.Request, _body: dict[str, Any]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for event in events:
            await response.write(f"data: {json.dumps(event)}\n\n".encode())
        if end:
            await response.write(b"data: [DONE]\n\n")
        return response

    return reply


def piece(index: int, text: str, finish_reason: str | None = None) -> dict[str, object]:
    return {"choices": [{"index": index, "text": text, "finish_reason": finish_reason}]}


def chat_piece(finish_reason: str | None = None, **delta: object) -> dict[str, object]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]}


USAGE = {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 4}}


def answered(
    vllm: FakeVllm,
    params: ServeParams,
    release: Release,
    generation: GenerationConfig = SHORT,
    deltas: list[Delta] | None = None,
) -> tuple[Answer, ...]:
    async def run() -> tuple[Answer, ...]:
        async with engine_over(vllm, params, release) as engine:
            return await engine.answer(
                release.version, ASKED, generation, deltas.append if deltas is not None else None
            )

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("mass", "questions"),
    [
        ({"good": 0.97, "fine": 0.02999, "bad": 0.00001}, 2),  # `fine` matters, `bad` does not
        ({"good": 0.99999, "bad": 0.00001}, 1),
        ({"good": 0.3, "goodish": 0.25, "go": 0.05, "bad": 0.2, "banal": 0.2}, 3),
        ({"I cannot say": 0.9, "good": 0.04, "goodish": 0.03, "god": 0.02, "bad": 0.01}, 3),
        ({"good": 0.2, "gone": 0.15, "got": 0.15, "bad": 0.3, "bat": 0.2}, 3),
    ],
)
def test_labels_have_their_share_of_the_mass(
    params: ServeParams, adapter: Make, mass: dict[str, float], questions: int
) -> None:
    labels = tuple(text for text in mass if " " not in text)
    vllm = FakeVllm(mass)
    [answer] = answered(vllm, params, adapter(labels=labels))
    total = sum(mass[label] for label in labels)
    assert answer.probabilities is not None
    assert answer.probabilities == pytest.approx({label: mass[label] / total for label in labels}, abs=1e-3)
    assert sum(answer.probabilities.values()) == pytest.approx(1)
    assert answer.text == max(labels, key=mass.__getitem__)
    assert answer.confidence == answer.probabilities[answer.text]
    assert answer.prompt_tokens == len(rendered(ASKED))
    assert answer.completion_tokens == len(answer.text) + 1
    assert len(vllm.asked("/v1/completions")) <= questions


def test_many_labels_are_asked_for_in_parts(params: ServeParams, adapter: Make) -> None:
    """More tokens part here than one question may name."""
    letters = [chr(position) for position in range(0x4E00, 0x4E00 + 80)]
    labels = tuple(first + second for first in letters[:4] for second in letters[4:])
    mass = {label: float(position + 50) for position, label in enumerate(labels)}
    vllm = FakeVllm(mass)
    [answer] = answered(vllm, params, adapter(labels=labels))
    total = sum(mass.values())
    assert answer.probabilities == pytest.approx({label: mass[label] / total for label in labels}, abs=1e-3)
    named = [len(body["logprob_token_ids"]) for path, body in vllm.requests if "completions" in path]
    assert max(named) <= MAX_LOGPROB_TOKENS


def test_more_labels_than_vllm_tells_apart_are_refused(params: ServeParams, adapter: Make) -> None:
    labels = tuple(chr(position) for position in range(0x4E00, 0x4E00 + MAX_LOGPROB_TOKENS + 1))
    with pytest.raises(PerpetuneError, match="129 labels differ at one token"):
        answered(FakeVllm(), params, adapter(labels=labels))


def test_a_label_is_streamed_at_once_with_its_token_logprobs(params: ServeParams, adapter: Make) -> None:
    deltas: list[Delta] = []
    vllm = FakeVllm({"ab": 0.5, "ac": 0.25, "b": 0.25})
    answers = answered(
        vllm, params, adapter(labels=("ab", "ac", "b")), GenerationConfig(1, n=2, top_logprobs=1), deltas
    )
    assert [(delta.index, delta.text) for delta in deltas] == [(0, "ab"), (1, "ab")]
    first, second = answers[0].logprobs or ()
    assert (first.token, second.token) == ("a", "b")
    assert first.logprob == pytest.approx(math.log(0.75)) and second.logprob == pytest.approx(math.log(2 / 3))
    assert [token for token, _ in first.top] == ["a"]


WANTED = GenerationConfig(
    max_tokens=5,
    n=2,
    stop=("\n",),
    temperature=0.5,
    top_p=0.9,
    presence_penalty=0.1,
    frequency_penalty=0.2,
    seed=3,
    top_logprobs=4,
    json_schema='{"type": "object"}',
)
SENT = {
    "max_tokens": 5,
    "n": 2,
    "stop": ["\n"],
    "temperature": 0.5,
    "top_p": 0.9,
    "presence_penalty": 0.1,
    "frequency_penalty": 0.2,
    "seed": 3,
    "response_format": {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": {"type": "object"}, "strict": True},
    },
    "stop_token_ids": [0],
}


def test_what_is_asked_reaches_vllm_whole(params: ServeParams, adapter: Make) -> None:
    vllm = FakeVllm(reply=saying(choice("one", token_ids=[1, 2]), {**choice("two", token_ids=[3]), "index": 1}))
    release = adapter()
    answers = answered(vllm, params, release, WANTED)
    [body] = vllm.asked("/v1/completions")
    expected = SENT | {"logprobs": 4, "prompt": rendered(ASKED)}
    assert {name: body[name] for name in expected} == expected
    assert "messages" not in body and "top_logprobs" not in body
    assert vllm.adapters[body["model"]] == str(release.adapter)
    assert [answer.text for answer in answers] == ["one", "two"]
    assert [answer.completion_tokens for answer in answers] == [2, 1], "each counts its own tokens"


def test_with_tools_vllm_is_sent_messages_and_the_versions_template(params: ServeParams, adapter: Make) -> None:
    """vLLM parses calls in its chat API alone, so that it renders the template."""
    message = {"content": "one"}
    vllm = FakeVllm(reply=saying({"index": 0, "message": message, "finish_reason": "stop"}))
    tools = [{"type": "function", "function": {"name": "f"}}]
    base = BaseParams(model=BASE.model, chat_template_kwargs={"enable_thinking": False})
    release = replace(adapter(), base=base, prompt_date=date(2026, 1, 2))
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    asked = (
        Message(role="assistant", content="", tool_calls=(call,)),
        Message(role="tool", content="rain", tool_call_id="a"),
    )

    async def run() -> tuple[Answer, ...]:
        async with running(vllm) as url:
            engine = VllmEngine(url, BASE, params, lambda: CharacterChat("a template of that day"))
            await engine.load(release)
            generation = replace(WANTED, n=1, tools=json.dumps(tools), tool_choice='"auto"')
            answers = await engine.answer("1", asked, generation)
            await engine.close()
            return answers

    assert [answer.text for answer in asyncio.run(run())] == ["one"]
    [body] = vllm.asked("/v1/chat/completions")
    expected = SENT | {
        "logprobs": True,
        "top_logprobs": 4,
        "tools": tools,
        "tool_choice": "auto",
        "chat_template_kwargs": {"enable_thinking": False},
        "chat_template": "a template of that day",
        "messages": [
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "content": "rain", "tool_call_id": "a"},
        ],
    }
    del expected["n"]
    assert {name: body[name] for name in expected} == expected


def test_log_probabilities_name_the_tokens_of_the_base_and_leave_out_the_last(
    params: ServeParams, adapter: Make
) -> None:
    scores = {
        "tokens": ["token_id:104", "token_id:105", "token_id:0"],
        "token_logprobs": [-0.5, -0.25, -0.1],
        "top_logprobs": [{"token_id:104": -0.5, "token_id:97": -0.125}, {"token_id:105": -0.25}, {"token_id:0": -0.1}],
    }
    vllm = FakeVllm(reply=saying(choice("hi", logprobs=scores)))
    [answer] = answered(vllm, params, adapter(), GenerationConfig(8, top_logprobs=1))
    assert answer.logprobs == (
        TokenLogprob("h", -0.5, (("a", -0.125),)),
        TokenLogprob("i", -0.25, (("i", -0.25),)),
    )


def test_the_likelihood_is_known_without_being_asked_for(params: ServeParams, adapter: Make) -> None:
    """Without the token that ends the answer, as in process; the client gets no log-probabilities."""
    scores = {
        "tokens": ["token_id:104", "token_id:105", "token_id:0"],
        "token_logprobs": [-0.5, -0.25, -3.0],
        "top_logprobs": [{"token_id:104": -0.5}, {"token_id:105": -0.25}, {"token_id:0": -3.0}],
    }
    vllm = FakeVllm(reply=saying(choice("hi", logprobs=scores)))
    [answer] = answered(vllm, params, adapter(), GenerationConfig(8))
    assert answer.likelihood == pytest.approx(math.exp(-0.375)) and answer.logprobs is None
    assert vllm.asked("/v1/completions")[0]["logprobs"] == 0


def test_the_likelihood_of_a_streamed_answer_is_of_all_its_chunks(params: ServeParams, adapter: Make) -> None:
    def scored(token: int, logprob: float) -> dict[str, object]:
        named = f"token_id:{token}"
        return {"tokens": [named], "token_logprobs": [logprob], "top_logprobs": [{named: logprob}]}

    chunks: list[dict[str, object]] = [
        {"index": 0, "text": "h", "finish_reason": None, "logprobs": scored(104, -0.5)},
        {"index": 0, "text": "i", "finish_reason": "stop", "logprobs": scored(105, -0.1)},
    ]
    deltas: list[Delta] = []
    vllm = FakeVllm(reply=streaming(*({"choices": [each]} for each in chunks), USAGE))
    [answer] = answered(vllm, params, adapter(), GenerationConfig(8), deltas)
    assert answer.likelihood == pytest.approx(math.exp(-0.3))
    assert [(delta.text, delta.logprobs) for delta in deltas] == [("h", None), ("i", None)]


def test_a_server_of_another_base_is_refused(params: ServeParams, adapter: Make) -> None:
    class Other(CharacterChat):
        def plain(self, text: str) -> list[int]:
            return [ord(letter) + 1 for letter in text]

    with pytest.raises(PerpetuneError, match="another tokenizer than the base path:tiny"):
        answered(FakeVllm(chat=Other()), params, adapter())


def test_a_reply_with_log_probabilities_and_tool_calls(params: ServeParams, adapter: Make) -> None:
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
    told = {"token": "hi", "logprob": -0.5, "top_logprobs": [{"token": "hi", "logprob": -0.5}]}
    message = {"content": None, "tool_calls": [call]}
    said = {"index": 0, "message": message, "logprobs": {"content": [told]}, "finish_reason": "tool_calls"}
    generation = GenerationConfig(8, top_logprobs=1, tools="[]")
    [answer] = answered(FakeVllm(reply=saying(said)), params, adapter(), generation)
    assert (answer.text, answer.finish_reason, answer.tool_calls) == ("", "tool_calls", (call,))
    assert answer.logprobs == (TokenLogprob("hi", -0.5, (("hi", -0.5),)),)
    assert (answer.prompt_tokens, answer.completion_tokens) == (7, 3)
    assert answer.confidence is None and answer.probabilities is None


def test_greedy_answers_are_written_once(params: ServeParams, adapter: Make) -> None:
    vllm = FakeVllm(reply=streaming(piece(0, "all"), piece(0, " alike", "stop"), USAGE))
    deltas: list[Delta] = []
    answers = answered(vllm, params, adapter(), GenerationConfig(8, n=3), deltas)
    assert [answer.text for answer in answers] == ["all alike"] * 3
    assert "n" not in vllm.asked("/v1/completions")[0]
    for index in range(3):
        assert "".join(delta.text for delta in deltas if delta.index == index) == "all alike"


def test_chunks_are_streamed_and_add_up(params: ServeParams, adapter: Make) -> None:
    vllm = FakeVllm(
        reply=streaming(
            piece(0, ""),
            piece(0, "a"),
            piece(1, "x"),
            piece(1, "y", "stop"),
            piece(0, "b", "length"),
            USAGE,
        )
    )
    deltas: list[Delta] = []
    answers = answered(vllm, params, adapter(), GenerationConfig(8, n=2, temperature=1.0), deltas)
    assert [(delta.index, delta.text) for delta in deltas] == [(0, "a"), (1, "x"), (1, "y"), (0, "b")]
    assert [(answer.text, answer.finish_reason) for answer in answers] == [("ab", "length"), ("xy", "stop")]
    assert answers[0].prompt_tokens == 7
    [body] = vllm.asked("/v1/completions")
    assert body["stream"] is True and body["stream_options"] == {"include_usage": True}


def test_tool_calls_stream_in_pieces(params: ServeParams, adapter: Make) -> None:
    begun = {"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": ""}}
    pieces = [{"index": 0, "function": {"arguments": text}} for text in ('{"x"', ": 1}")]
    events = [chat_piece(tool_calls=[one]) for one in (begun, *pieces)]
    deltas: list[Delta] = []
    vllm = FakeVllm(reply=streaming(*events, chat_piece("tool_calls"), USAGE))
    [answer] = answered(vllm, params, adapter(), GenerationConfig(8, tools="[]"), deltas=deltas)
    assert answer.tool_calls == ({"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}},)
    assert [delta.tool_calls for delta in deltas] == [(begun,), (pieces[0],), (pieces[1],)]


@pytest.mark.parametrize(
    ("asked", "param"),
    [({"json_schema": "{}"}, "response_format"), ({"tools": "[]", "tool_choice": '"required"'}, "tool_choice")],
)
def test_a_label_is_in_no_other_form(params: ServeParams, adapter: Make, asked: dict[str, Any], param: str) -> None:
    vllm = FakeVllm()
    with pytest.raises(Unsupported) as caught:
        answered(vllm, params, adapter(labels=("ab", "b")), GenerationConfig(1, **asked))
    assert caught.value.param == param


def test_what_vllm_forgot_is_loaded_again(params: ServeParams, adapter: Make) -> None:
    async def run() -> None:
        vllm = FakeVllm(reply=saying(choice("hello")))
        release = adapter()
        async with engine_over(vllm, params, release) as engine:
            vllm.adapters.clear()
            [answer] = await engine.answer("1", ASKED, SHORT)
            assert answer.text == "hello"
            (release.adapter / "adapter_config.json").unlink()
            vllm.adapters.clear()
            with pytest.raises(EngineDown, match="No adapter found"):
                await engine.answer("1", ASKED, SHORT)
            await engine.unload("1")
            with pytest.raises(NotLoaded):
                await engine.answer("1", ASKED, SHORT)

    asyncio.run(run())


def test_an_adapter_that_vllm_holds_already_is_well(params: ServeParams, adapter: Make) -> None:
    """As after a restart of the gateway."""

    async def run() -> None:
        vllm = FakeVllm()
        async with engine_over(vllm, params, adapter()) as engine:
            [before] = vllm.adapters
            await engine.load(adapter())
            assert list(vllm.adapters) == [before]
            await engine.unload("1")
            assert not vllm.adapters
            changed = adapter()
            (changed.adapter / "adapter_model.safetensors").write_text("other weights")
            await engine.load(changed)
            assert before not in vllm.adapters, "a name belongs to its bytes"

    asyncio.run(run())


def test_releases_that_vllm_cannot_serve(params: ServeParams, adapter: Make, release: Make) -> None:
    async def run() -> None:
        async with engine_over(FakeVllm(), params) as engine:
            with pytest.raises(PerpetuneError, match="fully trained"):
                await engine.load(release("1"))
            with pytest.raises(PerpetuneError, match="DoRA"):
                await engine.load(adapter("2", use_dora=True))
            with pytest.raises(PerpetuneError, match="hf:other/base main, but path:tiny is loaded"):
                await engine.load(release("3", base=BaseParams(model="hf:other/base", revision="main")))

    asyncio.run(run())


@pytest.mark.parametrize("deltas", [None, []], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    ("answer", "expected", "text"),
    [
        (fault(500, "EngineDeadError"), EngineDown, "500: EngineDeadError"),
        (web.Response(status=503, text="starting"), EngineDown, "starting"),
        (fault(400, "Grammar error", None), Unsupported, "Grammar error"),
        (fault(400, "temperature must be non-negative", "temperature"), Unsupported, "non-negative"),
        (
            fault(
                400,
                "This model's maximum context length is 8192 tokens. However, your prompt contains at least 8193 input "
                "tokens, which exceeds this limit",
                "input_tokens",
            ),
            PromptTooLong,
            "8193 tokens; the context leaves 8192",
        ),
    ],
    ids=["500", "503", "grammar", "temperature", "too long"],
)
def test_faults(
    params: ServeParams,
    adapter: Make,
    answer: web.Response,
    expected: type[Exception],
    text: str,
    deltas: list[Delta] | None,
) -> None:
    async def reply(_request: web.Request, _body: dict[str, Any]) -> web.Response:
        return web.Response(status=answer.status, body=answer.body, content_type=answer.content_type)

    generation = GenerationConfig(8, json_schema="{}")
    with pytest.raises(expected, match=text) as caught:
        answered(FakeVllm(reply=reply), params, adapter(), generation, deltas)
    if isinstance(caught.value, Unsupported):
        assert caught.value.param == (
            "temperature" if "temperature" in text or "negative" in text else "response_format"
        )


@pytest.mark.parametrize(
    "reply",
    [
        streaming(piece(0, "a"), end=False),
        streaming(piece(0, "a"), {"error": {"message": "EngineCore died", "code": 500}}),
    ],
    ids=["cut off", "an error as the last event"],
)
def test_a_stream_that_breaks(params: ServeParams, adapter: Make, reply: Reply) -> None:
    deltas: list[Delta] = []
    with pytest.raises(EngineDown):
        answered(FakeVllm(reply=reply), params, adapter(), deltas=deltas)
    assert [delta.text for delta in deltas] == ["a"]


def test_a_server_that_is_gone(params: ServeParams, adapter: Make) -> None:
    async def run() -> None:
        async with running(FakeVllm()) as url:
            engine = VllmEngine(url, BASE, params, CharacterChat)
            await engine.load(adapter())
        with pytest.raises(EngineDown):
            await engine.answer("1", ASKED, SHORT)
        with pytest.raises(EngineDown):
            await engine.load(adapter("2"))
        await engine.unload("1")
        await engine.close()

    asyncio.run(run())


def test_a_connection_closed_under_a_request_is_tried_again(params: ServeParams, adapter: Make) -> None:
    times = 0

    async def reply(request: web.Request, _body: dict[str, Any]) -> web.StreamResponse:
        nonlocal times
        times += 1
        if times == 1:
            assert request.transport
            request.transport.close()
            await asyncio.sleep(1)
        return await saying(choice("hello"))(request, _body)

    [answer] = answered(FakeVllm(reply=reply), params, adapter())
    assert answer.text == "hello"


def test_more_than_may_wait_are_refused_and_what_is_given_up_makes_room(params: ServeParams, adapter: Make) -> None:
    async def run() -> None:
        ended = asyncio.Event()

        async def reply(_request: web.Request, _body: dict[str, Any]) -> web.StreamResponse:
            try:
                await asyncio.sleep(60)
            finally:
                ended.set()
            raise AssertionError("the request should have been given up")

        async with engine_over(FakeVllm(reply=reply), params, adapter()) as engine:
            waiting = [asyncio.create_task(engine.answer("1", ASKED, SHORT)) for _ in range(params.max_queue)]
            await asyncio.sleep(0.2)
            with pytest.raises(Overloaded) as caught:
                await engine.answer("1", ASKED, SHORT)
            assert caught.value.retry_after == 1
            for task in waiting:
                task.cancel()
            await asyncio.wait(waiting)
            async with asyncio.timeout(5):
                await ended.wait()  # vLLM is told, and writes no further
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await engine.answer("1", ASKED, SHORT)

    asyncio.run(run())


def test_a_trace_goes_on_in_vllm(params: ServeParams, adapter: Make) -> None:
    async def run() -> None:
        vllm = FakeVllm(reply=saying(choice("hello")))
        async with engine_over(vllm, params, adapter()) as engine:
            await engine.answer("1", ASKED, SHORT)
            assert "traceparent" not in vllm.headers[-1]
            with TracerProvider().get_tracer("test").start_as_current_span("request") as span:
                await engine.answer("1", ASKED, SHORT)
            trace_id = format(span.get_span_context().trace_id, "032x")
            assert trace_id in vllm.headers[-1]["traceparent"]

    asyncio.run(run())


def test_the_space_around_a_text_is_left_out_as_in_process(params: ServeParams, adapter: Make) -> None:
    [whole] = answered(FakeVllm(reply=saying(choice(" \n all is well \n"))), params, adapter())
    deltas: list[Delta] = []
    pieces = [piece(0, text) for text in (" ", "\n all", " is", " ", "well \n")]
    [streamed] = answered(
        FakeVllm(reply=streaming(*pieces, piece(0, "", "stop"), USAGE)), params, adapter(), deltas=deltas
    )
    assert whole.text == streamed.text == "".join(delta.text for delta in deltas) == "all is well"


def test_a_key_is_sent_with_every_call_if_there_is_one(params: ServeParams, adapter: Make) -> None:
    async def run(key: SecretStr | None) -> list[str | None]:
        vllm = FakeVllm(reply=saying(choice("hello")))
        async with running(vllm) as url:
            engine = VllmEngine(url, BASE, params, CharacterChat, key)
            await engine.load(adapter())
            await engine.answer("1", ASKED, SHORT)
            await engine.close()
        return [headers.get("authorization") for headers in vllm.headers]

    assert asyncio.run(run(SecretStr("hidden\n"))) == ["Bearer hidden"] * 3
    assert asyncio.run(run(None)) == [None] * 3


def test_a_prompted_version_asks_the_base_by_its_name(params: ServeParams, adapter: Make, release: Make) -> None:
    async def run() -> None:
        vllm = FakeVllm({"good": 0.3, "bad": 0.7})
        prompted = replace(release("1", ("good", "bad")), system="prompted")
        async with engine_over(vllm, params, prompted, adapter("2", ("good", "bad"))) as engine:
            (answer,) = await engine.answer("1", ASKED, SHORT)
            assert (answer.text, round(answer.confidence or 0, 3)) == ("bad", 0.7)
            await engine.answer("2", ASKED, SHORT)
            names = dict.fromkeys(body["model"] for body in vllm.asked("/v1/completions"))
            assert [*names] == [BASE_NAME, *vllm.adapters]
            await engine.unload("1")
            assert vllm.asked("/v1/unload_lora_adapter") == []
            with pytest.raises(NotLoaded):
                await engine.answer("1", ASKED, SHORT)

    asyncio.run(run())
