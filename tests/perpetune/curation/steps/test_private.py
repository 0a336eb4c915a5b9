from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

import pytest
import spacy
from hypothesis import given
from hypothesis import strategies as st

from perpetune.curation.readers.row import example_of
from perpetune.curation.steps.private import finder, private
from perpetune.errors import PerpetuneError
from perpetune.params import PrivateParams, TaskParams
from perpetune.records import Example, Message
from perpetune.redacting.found import Found

Make = Callable[..., Example]
REPLACE = PrivateParams(mode="replace", names="off")
TEXT = TaskParams.model_validate({"name": "words", "kind": "generation", "instruction": ""})
LABELS = TaskParams.model_validate({"name": "words", "kind": "classification", "instruction": ""})


@lru_cache(maxsize=1)
def patterns() -> Callable[[str], Iterator[Found]]:
    return finder(REPLACE)  # type: ignore[return-value]


def replaced(rows: list[Example], task: TaskParams = TEXT, params: PrivateParams = REPLACE) -> dict[str, Example]:
    return {row.id: row for row in private(rows, params, task, patterns()).kept}


def test_the_output_copies_the_placeholder_of_its_input(example: Make) -> None:
    row = example("Write to ann@acme.org, not to joe@acme.org", '{"to": "JOE@acme.org"}', id="1")
    clean = replaced([row])["1"]
    assert clean.input == "Write to <EMAIL_ADDRESS_1>, not to <EMAIL_ADDRESS_2>"
    assert json.loads(clean.output) == {"to": "<EMAIL_ADDRESS_2>"}


def test_a_group_shares_its_placeholders_and_other_groups_do_not(example: Make) -> None:
    rows = [
        example("from ann@acme.org", id="1", group="g"),
        example("from joe@acme.org", id="2", group="g"),
        example("again ann@acme.org", id="3", group="g"),
        example("from joe@acme.org", id="4", group="h"),
    ]
    found = {id_: row.input.split()[-1] for id_, row in replaced(rows).items()}
    assert found == dict(
        zip("1234", ("<EMAIL_ADDRESS_1>", "<EMAIL_ADDRESS_2>", "<EMAIL_ADDRESS_1>", "<EMAIL_ADDRESS_1>"), strict=True)
    )


def test_conversations_and_tool_calls_are_replaced_too() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"to": "ann@acme.org"}'}}
    turns = (
        Message(role="user", content="ann@acme.org wants a refund"),
        Message(role="assistant", content="", tool_calls=(call,)),
        Message(role="tool", content="sent to ann@acme.org", tool_call_id="c1"),
    )
    row = Example(input=turns[0].content, output="done", id="1", group="g", source="f", messages=turns)
    clean = replaced([row])["1"]
    assert "acme" not in clean.model_dump_json()
    assert clean.messages[0].content == clean.input == "<EMAIL_ADDRESS_1> wants a refund"
    assert clean.messages[1].tool_calls is not None
    assert json.loads(clean.messages[1].tool_calls[0]["function"]["arguments"]) == {"to": "<EMAIL_ADDRESS_1>"}


def test_labels_stay(example: Make) -> None:
    row = example("call ann@acme.org", "team@acme.org", id="1")
    assert replaced([row], LABELS)["1"].output == "team@acme.org"


def test_what_is_written_down_does_not_hold_the_values(example: Make) -> None:
    rows = [example("call ann@acme.org", "tell joe@acme.org, api_key=hunter2hunter2", id="1")]
    done = private(rows, REPLACE, TEXT, patterns())
    assert [(each.field, each.before) for each in done.changed] == [
        ("input", "call ████████████"),
        ("output", "tell ████████████, api_key=██████████████"),
    ]
    reported = private(rows, REPLACE.model_copy(update={"mode": "report"}), TEXT, patterns())
    assert reported.kept == tuple(rows)
    assert [row.reason for row in reported.reported] == ["EMAIL_ADDRESS", "SECRET"]
    assert "acme" not in "".join(row.model_dump_json() for row in reported.reported)


def test_off_changes_and_reports_nothing_and_allowed_values_stay(example: Make) -> None:
    row = example("write to Help@acme.org or ann@acme.org", id="1")
    off = private([row], PrivateParams(mode="off"), TEXT, patterns())
    assert (off.kept, off.reported) == ((row,), ())
    allowed = REPLACE.model_copy(update={"allow": ("help@acme.org",)})
    assert replaced([row], params=allowed)["1"].input == "write to Help@acme.org or <EMAIL_ADDRESS_1>"


def test_numbers_that_rows_use_already_are_not_given_again(example: Make) -> None:
    row = example("<EMAIL_ADDRESS_1> and ann@acme.org", id="1")
    assert replaced([row])["1"].input == "<EMAIL_ADDRESS_1> and <EMAIL_ADDRESS_2>"


def test_names_are_found_by_an_installed_model(tmp_path: Path, example: Make) -> None:
    model = spacy.blank("en")
    model.add_pipe("entity_ruler").add_patterns([{"label": "PERSON", "pattern": "Ann Lee"}])  # type: ignore[attr-defined]
    model.to_disk(tmp_path / "model")
    params = PrivateParams(mode="replace", spacy_model=str(tmp_path / "model"))
    [row] = private([example("Ann Lee, ann@acme.org", "Dear Ann Lee")], params, TEXT, finder(params)).kept
    assert (row.input, row.output) == ("<PERSON_1>, <EMAIL_ADDRESS_1>", "Dear <PERSON_1>")
    with pytest.raises(PerpetuneError, match="spaCy's model not_there is not installed"):
        finder(params.model_copy(update={"names": "on", "spacy_model": "not_there"}))


DATA = [
    "ann@acme.org",
    "+1 650 253 0000",
    "555 1234567",
    "bob:pw1@host.com",
    "4111 1111 1111 1111",
    "hunter2222",
    "1.2.3.4",
]
AROUND = [
    " ",
    "<EMAIL_ADDRESS_1>",
    "<SECRET_7>",
    "password=",
    "@",
    "://",
    '{"a": "',
    '"}',
    ",",
    "é",
    "DE89 3704 0044 0532 0130 00",
]
PIECES = st.sampled_from([*DATA, *AROUND])
TEXTS = st.lists(st.one_of(PIECES, st.text(max_size=5)), min_size=1, max_size=8).map("".join)


@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=12))
def test_rows_stay_and_a_second_run_changes_nothing(pairs: list[tuple[str, str]]) -> None:
    rows = [
        Example(input=one, output=other, id=str(number), group=str(number % 3), source="f")
        for number, (one, other) in enumerate(pairs)
    ]
    once = private(rows, REPLACE, TEXT, patterns())
    assert sorted(row.id for row in once.kept) == sorted(row.id for row in rows)
    assert once == private(list(reversed(rows)), REPLACE, TEXT, patterns())
    assert private(once.kept, REPLACE, TEXT, patterns()).kept == once.kept


def test_equal_inputs_are_in_one_group_afterwards() -> None:
    rows = [example_of({"input": f"from {name}@acme.org", "output": "x"}, "f") for name in ("ann", "joe")]
    assert len({row.group for row in rows}) == 2
    assert len({row.group for row in private(rows, REPLACE, TEXT, patterns()).kept}) == 1
