from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given
from hypothesis import strategies as st

from perpetune.curation.quarantine import by_reason, combined, in_order
from perpetune.curation.rows.versions import OLDER_VERSION
from perpetune.curation.steps.validate import REPEATED, validate, validated
from perpetune.records import Example, Message, StoredRecords, write_jsonl

Make = Callable[..., Example]


def test_a_repeated_row_is_dropped_and_counted(example: Make) -> None:
    outcome = validate([example("a", id="1"), example("b", id="2"), example("a", id="1")])

    assert sorted(row.input for row in outcome.kept) == ["a", "b"]
    assert by_reason(outcome.quarantined) == {REPEATED: 1}


def test_a_repeated_row_leaves_its_references(example: Make) -> None:
    rows = [example("a", id="1").model_copy(update={"references": (text,)}) for text in ("sure", "yep")]
    (kept,) = validate(rows).kept
    assert sorted(kept.references) == ["sure", "yep"]


def test_unlike_rows_that_share_an_id_are_all_kept(example: Make) -> None:
    rows = [example("a", id="1"), example("b", id="1"), example("b", "no", id="1"), example("c", id="2")]
    outcome = validate(rows)

    assert sorted((row.input, row.output) for row in outcome.kept) == [
        ("a", "yes"),
        ("b", "no"),
        ("b", "yes"),
        ("c", "yes"),
    ]
    assert not outcome.quarantined
    assert len({row.id for row in outcome.kept}) == 4
    assert sum(row.id.startswith("1~") for row in outcome.kept) == 3


def test_ids_that_start_again_at_other_times_lose_no_row(example: Make) -> None:
    rows = [example(f"shard {hour} row {n}", id=str(n), hour=hour) for hour in range(3) for n in range(20)]
    outcome = validate([*rows, *[example("one id for all", id="0", hour=9)]])
    assert len(outcome.kept) == 61 and not outcome.quarantined


def test_an_edited_text_is_a_new_version(example: Make) -> None:
    rows = [example("The box came open", id="1", hour=1), example("the box came open again.", id="1", hour=2)]
    outcome = validate(rows)
    assert [row.input for row in outcome.kept] == ["the box came open again."]
    assert by_reason(outcome.quarantined) == {OLDER_VERSION: 1}


def test_the_newest_of_different_rows_with_one_id_stays(example: Make) -> None:
    outcome = validate([example("a", "old", id="1", hour=1), example("a", "new", id="1", hour=2)])

    assert [row.output for row in outcome.kept] == ["new"]
    assert by_reason(outcome.quarantined) == {OLDER_VERSION: 1}


def test_two_sources_may_use_the_same_ids(example: Make) -> None:
    outcome = validate([example("a", id="1", source="x"), example("b", id="1", source="y"), example("c", id="2")])

    assert sorted(row.id for row in outcome.kept) == ["2", "x:1", "y:1"]
    assert not outcome.quarantined


def test_an_edited_export_under_another_name_is_a_new_version_and_keeps_its_name(example: Make) -> None:
    old = [example(f"my parcel {n} was late", id=f"k{n}", hour=1, source="before") for n in range(5)]
    new = [example(f"{row.input}.", id=row.id, hour=2, source="after") for row in old]
    outcome = validate([*old, *new])

    assert {row.input for row in outcome.kept} == {row.input for row in new}
    assert {(row.id, row.source) for row in outcome.kept} == {(row.id, "before") for row in old}
    assert by_reason(outcome.quarantined) == {OLDER_VERSION: 5}


def test_what_production_says_of_an_id_is_another_row(example: Make) -> None:
    rows = [example("a text", id="k", hour=1), example("a text", "no", id="k", hour=2, source="traffic")]
    assert sorted(row.id for row in validate(rows).kept) == ["file:k", "traffic:k"]


def test_rows_with_tool_calls_are_kept(example: Make) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    turns = (
        Message(role="user", content="weather?"),
        Message(role="assistant", content="", tool_calls=(call,)),
        Message(role="tool", content="5", tool_call_id="1"),
        Message(role="user", content="thanks"),
    )
    rows = [example("thanks").model_copy(update={"messages": turns}), example("plain")]

    assert sorted(row.input for row in validate([*rows, *rows]).kept) == ["plain", "thanks"]


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from("12345"), st.sampled_from(["one", "two"]), st.integers(0, 2)),
        max_size=20,
    )
)
def test_rows_that_share_no_id_need_not_be_compared(rows: list[tuple[str, str, str, int]]) -> None:
    examples = in_order(
        Example(
            input=text,
            output="x",
            id=id,
            group=text,
            source=source,
            time=datetime(2026, 1, day, tzinfo=UTC) if day else None,
        )
        for source, id, text, day in rows
    )
    with TemporaryDirectory() as folder:
        write_jsonl(Path(folder) / "rows.jsonl", examples)
        found = combined(validated(StoredRecords(Path(folder) / "rows.jsonl", Example)))
    expected = validate(examples)
    assert list(found.kept) == in_order(expected.kept)
    assert found.quarantined == expected.quarantined
