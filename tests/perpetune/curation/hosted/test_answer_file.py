from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from perpetune.curation.hosted.answer_file import HostedAnswer, Unusable, read_answers
from perpetune.curation.hosted.answer_text import answer_text, functions_in
from perpetune.errors import PerpetuneError

ASKED = {"role": "user", "content": "Where is it?"}
SAID = {"role": "assistant", "content": "delivery", "refusal": None}
CHOICES = [{"index": 0, "message": SAID, "finish_reason": "stop"}]
CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"b": 1, "a": 2}'}}


def read(folder: Path, *lines: object) -> tuple[list[HostedAnswer], list[Unusable]]:
    path = folder / "hosted.jsonl"
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    return read_answers([(path, "hosted.jsonl")])


@pytest.mark.parametrize(
    "line",
    [
        {"input": "Where is it?", "output": "delivery"},
        {"prompt": "Where is it?", "completion": "delivery"},
        {"question": "Where is it?", "answer": "delivery"},
        {"messages": [ASKED], "output": "delivery"},
        {"messages": [ASKED], "output": SAID},
        {"messages": [ASKED], "response": "delivery"},
        {"messages": [ASKED, SAID]},
        {"input": [ASKED], "output": [SAID]},
        {"messages": [ASKED, {"role": "assistant", "content": "what was wanted"}], "output": "delivery"},
        {"id": "chatcmpl-1", "object": "chat.completion", "messages": [ASKED], "choices": CHOICES},
        {"request": {"messages": [ASKED]}, "response": {"choices": CHOICES}},
        {"body": {"messages": [ASKED]}, "response": {"status_code": 200, "body": {"choices": CHOICES}}},
        {"input": "Where is it?", "choices": [{"text": "delivery", "index": 0}]},
        {"sample": {"input": [ASKED], "output": [SAID], "finish_reason": "stop"}, "datasource_item": {"x": "y"}},
        {
            "input": "Where is it?",
            "object": "response",
            "output": [
                {"type": "reasoning", "summary": []},
                {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "delivery"}]},
            ],
        },
    ],
    ids=lambda line: "-".join(line)[:40],
)
def test_every_shape_gives_what_was_asked_and_answered(tmp_path: Path, line: dict[str, Any]) -> None:
    (found,), unusable = read(tmp_path, line)

    assert (found.output, unusable) == ("delivery", [])
    assert found.asked is not None
    assert [(turn["role"], turn["content"]) for turn in found.asked] == [("user", "Where is it?")]


def test_a_batch_takes_what_was_asked_from_its_requests(tmp_path: Path) -> None:
    request = {"custom_id": "r-1", "method": "POST", "url": "/v1/chat/completions", "body": {"messages": [ASKED]}}
    answer = {"id": "b", "custom_id": "r-1", "response": {"status_code": 200, "body": {"choices": CHOICES}}}
    lost = {**answer, "custom_id": "r-2"}
    (first, second), _ = read(tmp_path, answer, lost, request)

    assert first.asked is not None
    assert (first.id, first.asked[0]["content"], second.id, second.asked) == ("r-1", "Where is it?", "r-2", None)


def test_instructions_of_the_responses_api_are_the_system_message(tmp_path: Path) -> None:
    (found,), _ = read(tmp_path, {"instructions": "Be short.", "input": "Where is it?", "output": "delivery"})

    assert found.asked is not None
    assert [turn["role"] for turn in found.asked] == ["system", "user"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ({"custom_id": "a", "response": {"status_code": 429, "body": {}}, "error": None}, "failed with 429"),
        (
            {"custom_id": "a", "response": None, "error": {"code": "x", "message": "expired"}},
            "the request failed: expired",
        ),
        ({"custom_id": "a", "response": {"status_code": 400, "body": {"error": {"message": "too long"}}}}, "too long"),
        ({"input": "a", "note": "b"}, "it holds no answer"),
        ({"messages": [ASKED]}, "it holds no answer"),
        ({"input": "a", "output": " "}, "the answer is empty"),
        ({"input": "a", "choices": []}, "it holds no answer"),
        ({"input": "a", "choices": [{"message": SAID, "finish_reason": "content_filter"}]}, "withheld by a filter"),
    ],
)
def test_a_line_without_an_answer_says_why(tmp_path: Path, line: dict[str, Any], reason: str) -> None:
    answers, (unusable,) = read(tmp_path, line)

    assert answers == []
    assert unusable.where == "hosted.jsonl:1"
    assert reason in unusable.reason


def test_broken_lines_and_byte_order_marks_cost_only_themselves(tmp_path: Path) -> None:
    path = tmp_path / "hosted.jsonl"
    path.write_bytes(
        b'\xef\xbb\xbf{"input": "\xc3\xa9", "output": "x"}\r\n{oh\r\n\r\n{"input": "b", "output": "y"}\r\n'
    )
    answers, (broken,) = read_answers([(path, "h.jsonl")])

    assert [answer.output for answer in answers] == ["x", "y"]
    assert broken.where == "h.jsonl:2"


def test_a_table_of_inputs_and_outputs_is_read(tmp_path: Path) -> None:
    path = tmp_path / "hosted.csv"
    path.write_text("input,output\nWhere is it?,delivery\n")
    (found,), _ = read_answers([(path, "hosted.csv")])

    assert (found.output, found.where) == ("delivery", "hosted.csv:2")


def test_an_empty_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(PerpetuneError, match="the file is empty"):
        read_answers([(tmp_path / "empty.jsonl", "empty.jsonl")])


def test_the_text_of_a_turn_is_its_content_or_its_refusal() -> None:
    assert (
        answer_text({"role": "assistant", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]})
        == "ab"
    )
    assert answer_text({"role": "assistant", "content": None, "refusal": "I cannot."}) == "I cannot."
    assert answer_text({"role": "assistant", "content": {"a": 1}}) == '{"a":1}'


def test_calls_are_names_and_arguments() -> None:
    old = {"role": "assistant", "function_call": {"name": "look", "arguments": '{"a":2,"b":1}'}}
    new = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    assert functions_in(new) == functions_in(old) == [{"name": "look", "arguments": {"a": 2, "b": 1}}]
    assert answer_text(new) == answer_text(old) == '[{"arguments": {"a": 2, "b": 1}, "name": "look"}]'
