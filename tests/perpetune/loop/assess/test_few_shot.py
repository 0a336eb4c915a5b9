from __future__ import annotations

from perpetune.loop.assess.few_shot import few_shot
from perpetune.records import Example, Message

SYSTEM, USER = Message(role="system", content="Sort."), Message(role="user", content="a")


def row(name: str, **fields: object) -> Example:
    return Example.model_validate({"input": "a", "output": name, "id": name, "group": name, "source": "t", **fields})


def test_examples_are_rows_of_one_question() -> None:
    """A system message before it is common in chat files, and no reason to leave the rows out."""
    earlier = (USER, Message(role="assistant", content="b"), USER)
    rows = [
        row("bare"),
        row("told", messages=(SYSTEM, USER)),
        row("longer", messages=earlier),
        row("[]", answers_with="tool_calls"),
    ]
    assert {message.content for message in few_shot(rows, 9, 1) if message.role == "assistant"} == {"bare", "told"}
