"""Forced tool calls, written by a random model whose every byte the schema constrains."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jsonschema
import pytest
from byte_models import random_byte_model

from perpetune.engines.engine import Unsupported
from perpetune.engines.openai_api.forced_tool import forced_tool
from perpetune.engines.transformers_engine import TransformersEngine
from perpetune.generation.answer import Answer
from perpetune.generation.parameters import Delta, GenerationConfig
from perpetune.inference.predictor import Predictor
from perpetune.model.base import Base
from perpetune.model.release import Release
from perpetune.params import BaseParams, ServeParams
from perpetune.records import Message

Make = Callable[..., Release]
BASE = BaseParams(model="path:tiny", revision=None)
ASKED = (Message(role="user", content="Was it good?"),)
RATE: dict[str, Any] = {
    "name": "rate",
    "description": "Rate a review.",
    "parameters": {
        "$defs": {"Tone": {"enum": ["warm", "cold"]}},
        "type": "object",
        "properties": {"stars": {"enum": [1, 2, 3]}, "tone": {"$ref": "#/$defs/Tone"}},
        "required": ["stars", "tone"],
    },
}
SKIP: dict[str, Any] = {"name": "skip"}
RATE_CLOSED = RATE["parameters"] | {"additionalProperties": False}


def forcing(choice: object, *functions: dict[str, Any], **more: Any) -> GenerationConfig:
    tools = [{"type": "function", "function": function} for function in functions]
    return GenerationConfig(**{"max_tokens": 200} | more, tools=json.dumps(tools), tool_choice=json.dumps(choice))


def named(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


@pytest.fixture(scope="module")
def byte_model() -> Base:
    return random_byte_model()


def answered(
    base: Base, params: ServeParams, release: Release, generation: GenerationConfig
) -> tuple[tuple[Answer, ...], list[Delta]]:
    """The answers, and the deltas of the same request streamed, whose calls are the same but for their ids."""

    async def run() -> tuple[tuple[Answer, ...], list[Delta]]:
        engine = TransformersEngine(Predictor(base, 1024), BASE, params)
        await engine.load(replace(release, system="prompted"))
        deltas: list[Delta] = []
        answers = await engine.answer(release.version, ASKED, generation)
        streamed = await engine.answer(release.version, ASKED, generation, deltas.append)
        assert [calls_of(answer) for answer in streamed] == [calls_of(answer) for answer in answers]
        assert [merged(deltas, index) for index in range(len(answers))] == [answer.tool_calls for answer in streamed]
        await engine.close()
        return answers, deltas

    return asyncio.run(run())


def calls_of(answer: Answer) -> list[Any]:
    return [call["function"] for call in answer.tool_calls]


def merged(deltas: list[Delta], index: int) -> tuple[dict[str, Any], ...]:
    """The calls of one answer, as a client merges them."""
    calls: list[dict[str, Any]] = []
    for delta in deltas:
        assert delta.text == ""
        for call in delta.tool_calls if delta.index == index else ():
            if "id" in call:
                calls.append(json.loads(json.dumps({name: value for name, value in call.items() if name != "index"})))
            else:
                calls[-1]["function"]["arguments"] += call["function"]["arguments"]  # type: ignore[index]
    return tuple(calls)


@pytest.mark.parametrize("choice", [named("rate"), "required"])
def test_a_tool_by_name_or_the_only_one_is_called(
    byte_model: Base, params: ServeParams, release: Make, choice: object
) -> None:
    functions = (RATE, SKIP) if choice == named("rate") else (RATE,)
    generation = forcing(choice, *functions, n=2, temperature=1.0, seed=3)
    answers, deltas = answered(byte_model, params, release("1"), generation)
    assert len(answers) == 2 and len(deltas) > 4
    for answer in answers:
        [call] = answer.tool_calls
        assert (answer.text, answer.finish_reason, call["type"]) == ("", "tool_calls", "function")
        [function] = calls_of(answer)
        assert function["name"] == "rate"
        jsonschema.validate(json.loads(function["arguments"]), RATE_CLOSED)
    assert len({str(answer.tool_calls[0]["id"]) for answer in answers}) == 2


def test_one_of_several_tools_is_chosen(byte_model: Base, params: ServeParams, release: Make) -> None:
    chosen = set()
    for seed in range(6):
        generation = forcing("required", RATE, SKIP, temperature=2.0, seed=seed)
        [answer], _ = answered(byte_model, params, release("1"), generation)
        [function] = calls_of(answer)
        schemas = {"rate": RATE_CLOSED, "skip": {"type": "object", "maxProperties": 0}}
        jsonschema.validate(json.loads(function["arguments"]), schemas[function["name"]])
        chosen.add(function["name"])
    assert chosen == {"rate", "skip"}


@pytest.mark.parametrize(("tokens", "functions"), [(3, (RATE,)), (25, (RATE, SKIP)), (4, (RATE, SKIP))])
def test_a_call_that_is_cut_off_says_so(
    byte_model: Base, params: ServeParams, release: Make, tokens: int, functions: tuple[dict[str, Any], ...]
) -> None:
    generation = forcing("required", *functions, max_tokens=tokens)
    [answer], _ = answered(byte_model, params, release("1"), generation)
    assert answer.finish_reason == "length"
    [function] = calls_of(answer)
    with pytest.raises(json.JSONDecodeError):
        json.loads(function["arguments"])


def test_a_tool_without_parameters_takes_none(byte_model: Base, params: ServeParams, release: Make) -> None:
    [answer], _ = answered(byte_model, params, release("1"), forcing(named("skip"), SKIP))
    assert json.loads(calls_of(answer)[0]["arguments"]) == {}


def test_what_cannot_be_forced_is_refused(byte_model: Base, params: ServeParams, release: Make) -> None:
    bad = RATE | {"parameters": {"type": "object", "properties": {"a": {"not": {"type": "string"}}}}}
    for version, generation, param in [
        (release("1"), forcing(named("rate"), bad), "tools"),
        (release("1"), forcing(named("gone"), RATE), "tool_choice"),
        (release("2", ("good", "bad")), forcing(named("rate"), RATE), "tool_choice"),
    ]:
        with pytest.raises(Unsupported) as caught:
            answered(byte_model, params, version, generation)
        assert caught.value.param == param


@pytest.mark.parametrize("choice", ["auto", "none", None])
def test_a_free_choice_forces_nothing(choice: object) -> None:
    assert forced_tool(forcing(choice, RATE)) is None
    assert forced_tool(GenerationConfig(8, tools="[]", tool_choice="auto")) is None


def test_objects_have_no_other_keys_than_those_that_a_tool_names() -> None:
    inner = {"type": "object", "properties": {"b": {"type": "string"}}}
    parameters: dict[str, Any] = {
        "properties": {"a": inner, "free": {"type": "object"}, "map": {**inner, "additionalProperties": True}},
        "$defs": {"both": {"allOf": [inner, inner]}},
        "default": inner,
    }
    tool = forced_tool(forcing("required", {"name": "f", "parameters": parameters}))
    assert tool is not None
    schema = json.loads(tool.json_schema)
    closed = inner | {"additionalProperties": False}
    assert (schema["type"], schema["additionalProperties"]) == ("object", False)
    assert schema["properties"] == parameters["properties"] | {"a": closed}
    assert (schema["$defs"], schema["default"]) == (parameters["$defs"], inner)
