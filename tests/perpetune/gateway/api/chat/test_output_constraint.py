from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from perpetune.engines.openai_api.chat import chat_body
from perpetune.gateway.releases.parity import require_parity
from perpetune.generation.parameters import GenerationConfig
from perpetune.model.release import GoldenPrompt, Release, ServingFacts, Trial
from perpetune.params import ReleaseParams
from perpetune.records import Message
from perpetune.testing.fake_engine import FakeEngine
from perpetune.testing.fake_registry import FakeSource

Start = Callable[..., Any]
Make = Callable[..., Release]

SCHEMA = {"type": "object", "properties": {"b": {"type": "string"}, "a": {"type": "integer"}}}
OTHER = {"type": "json_schema", "json_schema": {"name": "other", "schema": {"type": "array"}}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


def held(release: Release) -> Release:
    return replace(release, output_schema=SCHEMA)


@pytest.mark.parametrize(
    ("more", "wanted"),
    [
        ({}, SCHEMA),
        ({"stream": True}, SCHEMA),
        ({"response_format": OTHER}, {"type": "array"}),
        ({"response_format": {"type": "json_object"}}, {"type": "object"}),
        ({"response_format": {"type": "text"}}, None),
        ({"tools": [TOOL]}, None),
        ({"tools": [TOOL], "tool_choice": "none"}, SCHEMA),
    ],
)
def test_the_tasks_schema_holds_unless_the_client_wants_something_else(
    start: Start, release: Make, more: dict[str, Any], wanted: object
) -> None:
    engine = FakeEngine()
    gateway = start(engine, source=FakeSource([held(release("1"))], champion="1"))
    assert gateway.ask("hello", **more).status_code == 200
    asked = engine.asked[-1][1].json_schema
    assert (asked and json.loads(asked)) == wanted
    if asked and wanted == SCHEMA:
        assert list(json.loads(asked)["properties"]) == ["b", "a"], "answers have their keys in this order"
        assert chat_body("m", (), engine.asked[-1][1])["response_format"]["json_schema"]["schema"] == SCHEMA


def test_each_version_is_held_to_its_own_schema(start: Start, release: Make) -> None:
    engine = FakeEngine()
    source = FakeSource([release("1"), held(release("2"))], champion="1", trial=Trial("2", "shadow", 1.0))
    gateway = start(engine, source=source)
    until = time.monotonic() + 30
    found: set[tuple[str, bool]] = set()
    while len(found) < 2 and time.monotonic() < until:
        gateway.ask("hello")  # its shadow answers once it is loaded, which may be after the champion
        time.sleep(0.05)
        users = [(version, generation) for version, generation in engine.asked if generation.max_tokens > 1]
        found = {(version, generation.json_schema is not None) for version, generation in users}
    assert found == {("1", False), ("2", True)}
    assert ("2", GenerationConfig(1, json_schema=json.dumps(SCHEMA))) in engine.asked, (
        "its first grammar is made before"
    )


def test_golden_prompts_are_asked_under_the_schema(release: Make, release_params: ReleaseParams) -> None:
    golden = GoldenPrompt(messages=(Message(role="user", content="one"),), output="1: one", confidence=None)
    asked = replace(held(release("1")), evaluated=ServingFacts(golden=(golden,)))
    engine = FakeEngine()

    async def check() -> None:
        await engine.load(asked)
        await require_parity(engine, asked, release_params, 16)

    asyncio.run(check())
    assert engine.asked == [("1", GenerationConfig(16, top_logprobs=5, json_schema=json.dumps(SCHEMA)))]
