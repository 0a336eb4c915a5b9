from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from perpetune.curation.hosted.answer_file import HostedAnswer
from perpetune.curation.hosted.matching import StoredAnswer, index_of, load_answers, save_answers, stored
from perpetune.curation.readers.row import example_of
from perpetune.errors import PerpetuneError
from perpetune.records import Example

SYSTEM = {"role": "system", "content": "Be short."}
ASKED = {"role": "user", "content": "Where is it?"}
WANTED = {"role": "assistant", "content": "there"}
CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"b": 1, "a": 2}'}}
SAME_CALL = {"id": "c9", "type": "function", "function": {"name": "look", "arguments": '{"a":2,"b":1}'}}


def row(*turns: dict[str, Any], **fields: object) -> Example:
    return example_of({"messages": [*turns, WANTED], **fields}, "training")


def answer(*turns: dict[str, Any], output: str = "here", id: str | None = None) -> HostedAnswer:
    return HostedAnswer(id, tuple(turns) or None, output, "hosted.jsonl:1")


def matched(one: Example, *answers: HostedAnswer) -> str | None:
    found = index_of(stored(answers)).answer_to(one)
    return found.output if found else None


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        ((ASKED,), (ASKED,)),
        ((SYSTEM, ASKED), (SYSTEM, ASKED)),
        ((SYSTEM, ASKED), ({**SYSTEM, "role": "developer"}, ASKED)),
        ((SYSTEM, ASKED), (ASKED,)),
        ((ASKED,), (SYSTEM, ASKED)),
        ((ASKED,), ({"role": "system", "content": ""}, {**ASKED, "content": " Where is it?\r\n"})),
        ((ASKED,), ({**ASKED, "content": [{"type": "text", "text": "Where is it?"}]},)),
        (
            (
                ASKED,
                {"role": "assistant", "tool_calls": [CALL]},
                {"role": "tool", "content": "5", "tool_call_id": "c1"},
            ),
            (
                ASKED,
                {"role": "assistant", "content": None, "tool_calls": [SAME_CALL]},
                {"role": "tool", "content": "5"},
            ),
        ),
    ],
)
def test_the_same_conversation_matches(asked: tuple[dict[str, Any], ...], answered: tuple[dict[str, Any], ...]) -> None:
    assert matched(row(*asked), answer(*answered)) == "here"


def test_another_conversation_with_the_same_last_message_does_not() -> None:
    before = ({"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"})
    assert matched(row(*before, ASKED), answer(ASKED)) is None


def test_without_the_system_message_only_if_it_cannot_be_mistaken() -> None:
    other = {**SYSTEM, "content": "Be long."}
    assert matched(row(ASKED), answer(SYSTEM, ASKED, output="a"), answer(other, ASKED, output="b")) is None
    assert matched(row(other, ASKED), answer(SYSTEM, ASKED, output="a"), answer(other, ASKED, output="b")) == "b"


def test_an_id_counts_only_if_the_answer_does_not_say_what_was_asked() -> None:
    mine = row(ASKED, id=7)
    assert matched(mine, answer(id="7")) == "here"
    assert matched(mine.model_copy(update={"id": "training:7"}), answer(id="7")) == "here"
    assert matched(mine, answer({**ASKED, "content": "Why?"}, id="7")) is None


def test_of_several_answers_to_the_same_the_first_is_kept() -> None:
    assert matched(row(ASKED), answer(ASKED, output="first"), answer(ASKED, output="second")) == "first"


def test_an_answer_that_names_nothing_is_not_kept() -> None:
    assert stored([answer()]) == []


def test_newer_answers_replace_kept_ones(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    save_answers(path, stored([answer(ASKED, output="old"), answer(id="7", output="kept")]))
    assert save_answers(path, stored([answer(ASKED, output="new")])) == 2
    assert [one.output for one in load_answers(path)] == ["new", "kept"]


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    assert load_answers(tmp_path / "none.jsonl") == []
    (tmp_path / "answers.jsonl").write_text('{"output": 1}\n')
    with pytest.raises(PerpetuneError, match="cannot be read") as found:
        load_answers(tmp_path / "answers.jsonl")
    assert found.value.where == str(tmp_path / "answers.jsonl")


def test_what_is_kept_holds_no_question() -> None:
    (kept,) = stored([answer(ASKED)])
    assert kept == StoredAnswer(conversation=kept.conversation, turns=kept.turns, output="here")
    assert "Where" not in kept.model_dump_json()
