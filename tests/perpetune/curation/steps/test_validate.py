from __future__ import annotations

from collections.abc import Callable

from perpetune.curation.quarantine import by_reason
from perpetune.curation.steps.validate import CONTRADICTED, REPEATED, validate
from perpetune.records import Example, Message

Make = Callable[..., Example]


def test_a_repeated_row_is_dropped_and_counted(example: Make) -> None:
    outcome = validate([example("a", id="1"), example("b", id="2"), example("a", id="1")])

    assert sorted(row.input for row in outcome.kept) == ["a", "b"]
    assert by_reason(outcome.quarantined) == {REPEATED: 1}


def test_a_repeated_row_leaves_its_references(example: Make) -> None:
    rows = [example("a", id="1").model_copy(update={"references": (text,)}) for text in ("sure", "yep")]
    (kept,) = validate(rows).kept
    assert sorted(kept.references) == ["sure", "yep"]


def test_different_rows_with_one_id_are_all_kept(example: Make) -> None:
    outcome = validate([example("a", id="1"), example("b", id="1"), example("c", id="2")])

    assert sorted(row.input for row in outcome.kept) == ["a", "b", "c"]
    assert len({row.id for row in outcome.kept}) == 3
    assert not outcome.quarantined


def test_an_id_that_many_dated_rows_share_is_no_id(example: Make) -> None:
    rows = [example(f"ticket number {hour}", id="session", hour=hour) for hour in range(5)]

    assert len(validate(rows).kept) == 5


def test_rows_with_tool_calls_are_kept(example: Make) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    turns = (
        Message(role="user", content="weather?"),
        Message(role="assistant", content="", tool_calls=(call,)),
        Message(role="tool", content="5", tool_call_id="1"),
        Message(role="user", content="thanks"),
    )
    row = example("thanks").model_copy(update={"messages": turns})

    assert validate([row, example("plain")]).kept == tuple(sorted([row, example("plain")], key=lambda each: each.id))


def test_the_newest_of_different_rows_with_one_id_stays(example: Make) -> None:
    outcome = validate([example("a", "old", id="1", hour=1), example("a", "new", id="1", hour=2)])

    assert [row.output for row in outcome.kept] == ["new"]
    assert by_reason(outcome.quarantined) == {CONTRADICTED: 1}


def test_two_sources_may_use_the_same_ids(example: Make) -> None:
    outcome = validate([example("a", id="1", source="x"), example("b", id="1", source="y"), example("c", id="2")])

    assert sorted(row.id for row in outcome.kept) == ["2", "x:1", "y:1"]
    assert not outcome.quarantined
