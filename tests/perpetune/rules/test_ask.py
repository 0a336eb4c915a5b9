"""A larger model as a rule: a server of the test answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from perpetune.errors import PerpetuneError
from perpetune.records import Example
from perpetune.rules.ask import ask, estimate, questions, vote
from perpetune.rules.prompt import Prompt
from perpetune.rules.replies import ReplyCache, reply_cache

Reply = Callable[[dict[str, Any]], tuple[int, dict[str, Any]]]
LABELS = ("billing", "login")
ROWS = [Example(input=text, output="", id=text, group=text, source="s") for text in ("pay", "password", "hm", "pay")]


def saying(text: str) -> tuple[int, dict[str, Any]]:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return 200, {"choices": [choice], "usage": {"prompt_tokens": 30, "completion_tokens": 2}}


def labelled(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    return saying({"pay": ' "Billing".', "password": "login"}.get(body["messages"][-1]["content"], "none"))


def voted(prompt: Prompt, cache: ReplyCache) -> list[str | None]:
    asked = questions(prompt, ROWS, LABELS, "Which team?")
    ask("large", prompt, asked, cache, wait=0.01)
    return [vote(each, LABELS, cache) for each in asked]


def test_labels_are_found_in_replies_and_a_second_run_asks_nothing(
    json_server: Callable[[Reply], str], tmp_path: Path
) -> None:
    bodies: list[dict[str, Any]] = []

    def reply(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        bodies.append(body)
        return labelled(body)

    prompt = Prompt(f"{json_server(reply)}/v1", "big", dollars_read=2.0, dollars_written=8.0, concurrency=2)
    path = tmp_path / "home" / "replies.db"
    with reply_cache(path) as cache:
        before = estimate("large", prompt, questions(prompt, ROWS, LABELS, "Which team?"), cache)
        assert (before.rows, before.requests) == (4, 3) and before.dollars and before.guessed
        assert "3 requests" in str(before) and "$0.00" in str(before)
        assert voted(prompt, cache) == ["billing", "login", None, "billing"]
    assert len(bodies) == 3
    system = bodies[0]["messages"][0]["content"]
    assert system.startswith("Which team?") and system.endswith("billing\nlogin") and bodies[0]["temperature"] == 0
    with reply_cache(path) as cache:
        after = estimate("large", prompt, questions(prompt, ROWS, LABELS, "Which team?"), cache)
        assert str(after) == "`large`: all 4 replies are in the cache: nothing is asked"
        assert voted(prompt, cache) == ["billing", "login", None, "billing"]
    assert len(bodies) == 3


def test_other_labels_or_another_instruction_are_asked_again(tmp_path: Path) -> None:
    prompt = Prompt("http://127.0.0.1:1/v1", "big")
    one, *others = (
        questions(Prompt("http://127.0.0.1:1/v1", "big", own), ROWS[:1], labels, instruction)[0].key
        for own, labels, instruction in (
            (None, LABELS, "a"),
            (None, LABELS, "b"),
            ("c", LABELS, "a"),
            (None, "xy", "a"),
        )
    )
    assert questions(prompt, ROWS[:1], LABELS, "a")[0].key == one and one not in others


def test_a_request_that_fails_is_tried_again(json_server: Callable[[Reply], str], tmp_path: Path) -> None:
    tried: list[str] = []

    def reply(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        text = body["messages"][-1]["content"]
        tried.append(text)
        return (503, {"error": {"message": "busy"}}) if tried.count(text) < 3 else labelled(body)

    with reply_cache(tmp_path / "replies.db") as cache:
        assert voted(Prompt(f"{json_server(reply)}/v1", "big"), cache) == ["billing", "login", None, "billing"]
    assert len(tried) == 9


def test_what_was_answered_before_the_server_failed_is_kept(
    json_server: Callable[[Reply], str], tmp_path: Path
) -> None:
    broken = ["password"]
    asked: list[str] = []

    def reply(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        text = body["messages"][-1]["content"]
        asked.append(text)
        return (401, {"error": {"message": "wrong key"}}) if text in broken else labelled(body)

    prompt = Prompt(f"{json_server(reply)}/v1", "big", concurrency=1, key_variable="BIG_KEY")
    with reply_cache(tmp_path / "replies.db") as cache:
        with pytest.raises(PerpetuneError, match=r"`large` cannot be asked: .*wrong key[\s\S]*BIG_KEY"):
            voted(prompt, cache)
        broken.clear()
        assert voted(prompt, cache) == ["billing", "login", None, "billing"]
    assert asked.count("pay") == 1


def test_a_row_that_is_too_long_is_an_abstention(json_server: Callable[[Reply], str], tmp_path: Path) -> None:
    def reply(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if body["messages"][-1]["content"] == "password":
            return 400, {"error": {"message": "too long", "code": "context_length_exceeded"}}
        return labelled(body)

    prompt = Prompt(f"{json_server(reply)}/v1", "big")
    with reply_cache(tmp_path / "replies.db") as cache:
        asked = questions(prompt, ROWS, LABELS, "")
        faults = ask("large", prompt, asked, cache)
        assert faults and faults.count == 1 and "too long" in faults.first
        assert [vote(each, LABELS, cache) for each in asked] == ["billing", None, None, "billing"]


def test_the_key_comes_from_the_variable_that_the_prompt_names(
    json_server: Callable[[Reply], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BIG_KEY", raising=False)
    with reply_cache(tmp_path / "replies.db") as cache:
        assert voted(Prompt(f"{json_server(labelled)}/v1", "big", key_variable="BIG_KEY"), cache)[0] == "billing"
