from __future__ import annotations

from typing import Any

import pytest

from perpetune.tool_calls import as_tool_calls, calls_in, hermes, same_calls, written


def call(name: object, arguments: object) -> dict[str, Any]:
    return {"id": "c1", "type": "function", "function": {"name": name, "arguments": arguments}}


LOOK = written([call("look", '{"b": 1, "a": {"z": [1, 2], "y": "é"}}')])
BOTH = written([call("look", {"at": "sky"}), call("ask", "{}")])


def test_equal_calls_are_equal_texts() -> None:
    assert written([{"function": {"arguments": {"a": {"y": "é", "z": [1, 2]}, "b": 1}, "name": "look"}}]) == LOOK
    assert LOOK == '[{"name": "look", "arguments": {"a": {"y": "é", "z": [1, 2]}, "b": 1}}]'
    assert written([call("ask", "")]) == written([call("ask", None)]) == '[{"name": "ask", "arguments": {}}]'


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({}, "function.name: missing"),
        ({"function": "look"}, "function.name: missing"),
        (call("", "{}"), "function.name: missing"),
        (call("look", "{oh"), "function.arguments: is no JSON"),
        (call("look", "[1]"), "function.arguments: must be a JSON object"),
        (call("look", 3), "function.arguments: must be a JSON object"),
    ],
)
def test_what_is_no_call_says_why(wrong: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        written([wrong])


@pytest.mark.parametrize(
    "answer",
    [
        BOTH,
        hermes(BOTH),
        '[TOOL_CALLS] [{"name": "ask", "arguments": {}}, {"name": "look", "arguments": {"at": "sky"}}]',
        '{"name": "look", "parameters": {"at": "sky"}}; {"name": "ask", "parameters": {}}',
        'Let me see {what}.\n<tool_call>\n{"name": "look", "arguments": "{\\"at\\": \\"sky\\"}"}\n</tool_call>{"name": "ask"}',
    ],
)
def test_calls_are_read_from_what_models_write(answer: str) -> None:
    assert same_calls(BOTH, answer) == 1


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "look at the sky",
        LOOK,
        '{"name": "look", "arguments": {"at": "sky"}}',
        '[{"name": "look", "arguments": {"at": "Sky"}}, {"name": "ask", "arguments": {}}]',
        '[{"name": "look", "arguments": {"at": "sky", "x": null}}, {"name": "ask", "arguments": {}}]',
        BOTH + BOTH,
        '[{"name": "look", "arguments": {"at": "sky"}}, {"name": "ask", "arguments": {',
        "{" * 5_000,
    ],
)
def test_other_calls_are_wrong(answer: str) -> None:
    assert same_calls(BOTH, answer) == 0


def test_arguments_are_compared_as_json_values() -> None:
    one = written([call("add", {"n": 1, "flag": True, "items": [1, 2]})])
    assert same_calls(one, '{"name": "add", "arguments": {"items": [1.0, 2], "flag": true, "n": 1.0}}') == 1
    assert same_calls(one, '{"name": "add", "arguments": {"items": [2, 1], "flag": true, "n": 1}}') == 0
    assert same_calls(one, '{"name": "add", "arguments": {"items": [1, 2], "flag": 1, "n": 1}}') == 0


def test_templates_get_them_in_openais_form() -> None:
    (first, second) = as_tool_calls(BOTH)
    assert (first["function"], second["id"]) == ({"name": "look", "arguments": {"at": "sky"}}, "call_1")
    assert [each["name"] for each in calls_in(hermes(BOTH))] == ["look", "ask"]
