from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perpetune.curation.quarantine import Rejected
from perpetune.curation.readers.options import read_options
from perpetune.curation.readers.reader import ReadRow, opened_table, read_rows
from perpetune.curation.readers.schemas.catalogue import SCHEMAS
from perpetune.curation.readers.table import Row, Table
from perpetune.records import Example

USER, ANSWER = {"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}
GOOD = {"input": "hi", "output": "hello"}
CALL = {"id": "1", "type": "function", "function": {"name": "look", "arguments": "{}"}}


def read(folder: Path, *records: object, columns: tuple[str, ...] = ()) -> list[ReadRow]:
    path = folder / "a.jsonl"
    path.write_text("\n".join(json.dumps(record) for record in records))
    options = read_options(columns, None, None)
    with opened_table(path, options) as table:
        return list(read_rows(table, path, "mine", options))


def one(folder: Path, record: object, columns: tuple[str, ...] = ()) -> ReadRow:
    (found,) = read(folder, record, columns=columns)
    return found


NAMES = [
    *sorted({name for schema in SCHEMAS for name in schema.columns}),
    *[
        "id",
        "role",
        "content",
        "from",
        "value",
        "parts",
        "type",
        "text",
        "tool_calls",
        "weight",
        "gen_ai.input.messages",
        "gen_ai.output.messages",
    ],
    *[
        "gen_ai.prompt.0.content",
        "key",
        "stringValue",
        "arrayValue",
        "kvlistValue",
        "values",
        "scopeSpans",
        "spans",
        "name",
        "result",
    ],
    *[
        "from_name",
        "choices",
        "ground_truth",
        "updated_at",
        "body",
        "message",
        "finish_reason",
        "label.responses",
        "label.responses.status",
    ],
    *["annotator", "annotation_id", "lead_time", "code", "start"],
]
LEAVES = st.sampled_from(
    [None, True, False, 0, 1, 2**70, 0.0, float("nan"), float("inf"), "", "a", "user", "assistant", "[1", "{}", "[]"]
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=5),
    max_leaves=12,
)


@settings(max_examples=400, deadline=None)
@given(st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=7))
def test_whatever_a_record_holds_it_is_an_example_or_rejected(record: dict[str, object]) -> None:
    path = Path("a.jsonl")
    table = Table((), [Row(1, "raw", GOOD), Row(2, "raw", record)])

    found = list(read_rows(table, path, "mine"))

    assert isinstance(found[0].row, Example)
    assert all(isinstance(each.row, (Example, Rejected)) for each in found)


def otlp(value: object) -> dict[str, object]:
    return {"stringValue": json.dumps(value)}


def span(**attributes: object) -> dict[str, object]:
    return {"spanId": "s1", "startTimeUnixNano": "1714564800000000000", "attributes": attributes}


def structured(value: object) -> dict[str, object]:
    """A value as OTLP writes it."""
    if isinstance(value, dict):
        return {"kvlistValue": {"values": [{"key": key, "value": structured(each)} for key, each in value.items()]}}
    if isinstance(value, list):
        return {"arrayValue": {"values": [structured(each) for each in value]}}
    return {"stringValue": value}


PARTS_IN = [{"role": "user", "parts": [{"type": "text", "content": "hi"}]}]
PARTS_OUT = [{"role": "assistant", "parts": [{"type": "text", "content": "hello"}], "finish_reason": "stop"}]


SAMPLES: list[tuple[str, dict[str, Any], set[str] | None]] = [
    (
        "OpenTelemetry spans",
        {
            "spanId": "1",
            "attributes": [
                {"key": "gen_ai.input.messages", "value": structured(PARTS_IN)},
                {"key": "gen_ai.output.messages", "value": structured(PARTS_OUT)},
            ],
        },
        set(),
    ),
    ("input/output", {"input": "hi", "output": "hello", "colour": 1}, {"colour"}),
    ("input/output", {"input": [USER], "output": ANSWER}, set()),
    ("OpenAI chat", {"messages": [USER, ANSWER], "tools": [], "label": True}, set()),
    ("OpenAI chat", {"messages": [USER, {**ANSWER, "weight": 1}], "parallel_tool_calls": False}, None),
    ("prompt/completion", {"prompt": "hi", "completion": "hello", "label": True}, set()),
    ("prompt/completion", {"prompt": [USER], "completion": [ANSWER]}, set()),
    ("Alpaca", {"instruction": "hi", "input": "", "output": "hello", "text": "..."}, {"text"}),
    ("Dolly", {"instruction": "hi", "context": "", "response": "hello", "category": "qa"}, {"category"}),
    ("ShareGPT", {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]}, set()),
    ("ShareGPT", {"conversation": [USER, ANSWER]}, set()),
    (
        "preference pairs (DPO): the chosen answers are learned",
        {"prompt": "hi", "chosen": "hello", "rejected": "no"},
        set(),
    ),
    (
        "preference pairs (DPO): the chosen answers are learned",
        {"chosen": [USER, ANSWER], "rejected": [USER, {"role": "assistant", "content": "no"}], "score_chosen": 4},
        {"score_chosen"},
    ),
    (
        "preference pairs (DPO): the chosen answers are learned",
        {"chosen": "\n\nHuman: hi\n\nAssistant: hello", "rejected": "\n\nHuman: hi\n\nAssistant: no"},
        set(),
    ),
    (
        "preference pairs (DPO): the chosen answers are learned",
        {"instruction": "hi", "input": "", "chosen": "hello", "rejected": "no"},
        set(),
    ),
    (
        "preference pairs (DPO): the chosen answers are learned",
        {
            "conversations": [{"from": "human", "value": "hi"}],
            "chosen": {"from": "gpt", "value": "hello"},
            "rejected": {"from": "gpt", "value": "no"},
        },
        set(),
    ),
    (
        "OpenAI preference pairs: the preferred answers are learned",
        {
            "input": {"messages": [USER], "tools": [], "parallel_tool_calls": True},
            "preferred_output": [ANSWER],
            "non_preferred_output": [{"role": "assistant", "content": "no"}],
        },
        set(),
    ),
    (
        "OpenAI stored completions",
        {
            "object": "chat.completion",
            "created": 1714564800,
            "messages": [USER],
            "choices": [{"message": ANSWER, "finish_reason": "stop"}],
        },
        {"object"},
    ),
    (
        "OpenAI stored completions",
        {"custom_id": "1", "body": {"messages": [USER]}, "response": {"body": {"choices": [{"message": ANSWER}]}}},
        {"custom_id"},
    ),
    ("Langfuse", {"traceId": "t", "type": "GENERATION", "input": [USER], "output": ANSWER}, None),
    ("Langfuse", {"trace_id": "t", "input": json.dumps({"messages": [USER]}), "output": "hello"}, None),
    ("Langfuse", {"input": {"question": "hi"}, "expectedOutput": "hello", "datasetId": "d"}, None),
    (
        "OpenTelemetry spans",
        span(**{"gen_ai.input.messages": PARTS_IN, "gen_ai.output.messages": PARTS_OUT}),
        set(),
    ),
    (
        "OpenTelemetry spans",
        span(**{"gen_ai.input.messages": json.dumps(PARTS_IN), "gen_ai.output.messages": json.dumps(PARTS_OUT)}),
        set(),
    ),
    (
        "OpenTelemetry spans",
        span(
            **{
                "gen_ai.prompt.0.role": "user",
                "gen_ai.prompt.0.content": "hi",
                "gen_ai.completion.0.content": "hello",
            }
        ),
        set(),
    ),
    (
        "OpenTelemetry spans",
        {
            "spanId": "s",
            "attributes": {"gen_ai.operation.name": "chat"},
            "events": [
                {
                    "name": "gen_ai.client.inference.operation.details",
                    "attributes": {"gen_ai.input.messages": PARTS_IN, "gen_ai.output.messages": PARTS_OUT},
                }
            ],
        },
        set(),
    ),
    (
        "OpenTelemetry spans",
        {
            "span_id": "s",
            "attributes": {},
            "events": [
                {"name": "gen_ai.user.message", "attributes": {"content": "hi"}},
                {"name": "gen_ai.choice", "attributes": {"message": {"content": "hello"}}},
            ],
        },
        set(),
    ),
    (
        "Label Studio",
        {
            "id": 1,
            "data": {"text": "hi", "meta": "x"},
            "annotations": [
                {"result": [{"from_name": "l", "type": "choices", "value": {"choices": ["hello"]}}]},
                {
                    "result": [{"from_name": "l", "type": "choices", "value": {"choices": ["no"]}}],
                    "was_cancelled": True,
                },
            ],
            "predictions": [],
        },
        {"predictions"},
    ),
    (
        "Label Studio (JSON-MIN or CSV)",
        {"text": "hi", "mood": "hello", "id": 1, "annotator": 1, "annotation_id": 2, "lead_time": 3.0},
        None,
    ),
    ("Argilla", {"id": "1", "fields": {"text": "hi"}, "responses": {"label": [{"value": "hello"}]}}, set()),
    (
        "Argilla",
        {"fields": {"text": "hi"}, "responses": [{"values": {"label": {"value": "hello"}}, "status": "submitted"}]},
        set(),
    ),
    (
        "Argilla (columns)",
        {
            "id": "1",
            "text": "hi",
            "label.responses": ["no", "hello"],
            "label.responses.status": ["draft", "submitted"],
        },
        set(),
    ),
    ("Argilla 1", {"inputs": {"text": "hi"}, "annotation": "hello", "status": "Validated", "prediction": []}, None),
]


@settings(max_examples=600, deadline=None)
@given(st.sampled_from([sample[1] for sample in SAMPLES]), st.integers(0, 60), VALUES)
def test_whatever_is_wrong_in_a_record_it_is_an_example_or_rejected(
    record: dict[str, Any], place: int, value: object
) -> None:
    spoiled = copy.deepcopy(record)
    places = list(_places(spoiled))
    holder, key = places[place % len(places)]
    holder[key] = value

    found = list(read_rows(Table((), [Row(1, "raw", GOOD), Row(2, "raw", spoiled)]), Path("a.jsonl"), "mine"))

    assert all(isinstance(each.row, (Example, Rejected)) for each in found)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every list or object in a value with each of its keys."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _places(value[key])


@pytest.mark.parametrize(("schema", "record", "ignored"), SAMPLES)
def test_each_schema_is_seen_and_read(
    tmp_path: Path, schema: str, record: dict[str, object], ignored: set[str] | None
) -> None:
    found = one(tmp_path, record)

    assert isinstance(found.row, Example), found.row
    assert (found.schema, found.row.input, found.row.output) == (schema, "hi", "hello")
    if ignored is not None:
        assert set(found.columns) - found.used == ignored


@pytest.mark.parametrize(
    ("record", "field", "reason"),
    [
        ({"messages": [USER, {**ANSWER, "weight": 0}]}, "messages[1].weight", "not to be learned"),
        ({"messages": [USER, ANSWER], "label": False}, "label", "marked as wrong"),
        ({"conversations": [USER, ANSWER], "kto_tag": False}, "kto_tag", "marked as wrong"),
        ({"prompt": "hi", "completion": "no", "label": "False"}, "label", "marked as wrong"),
        (
            {"messages": [USER, {"role": "assistant", "tool_calls": [{"type": "function", "function": {}}]}]},
            "messages[1].tool_calls",
            "function.name: missing",
        ),
        (
            {"messages": [USER, {"role": "assistant", "function_call": {"name": "f", "arguments": "{oh"}}]},
            "messages[1].tool_calls",
            "function.arguments: is no JSON: '{oh'",
        ),
        (
            {"messages": [USER], "choices": [{"message": ANSWER, "finish_reason": "length"}]},
            "choices",
            "cut off at the length limit",
        ),
        ({"object": "chat.completion", "choices": [{"message": ANSWER}]}, "messages", "/chat/completions/ID/messages"),
        ({"traceId": "t", "level": "ERROR", "input": "hi", "output": "hello"}, "level", "the call failed"),
        ({"spanId": "s", "attributes": {"http.method": "GET"}}, "attributes", "no gen_ai.input.messages"),
        ({"data": {"text": "hi"}, "annotations": []}, "annotations", "nobody has annotated it"),
        (
            {
                "data": {"text": "hi"},
                "annotations": [
                    {"result": [{"from_name": "l", "value": {"choices": [label]}}]} for label in ("a", "b")
                ],
            },
            "annotations",
            "the annotators disagree: a (1), b (1)",
        ),
        (
            {
                "data": {"text": "hi"},
                "annotations": [{"result": [{"from_name": "l", "type": "labels", "value": {"start": 0}}]}],
            },
            "annotations",
            "labels of l is no answer in text",
        ),
        (
            {"text": "hi", "label.responses": None, "label.suggestion": "hello"},
            "label.responses",
            "nobody has annotated",
        ),
        (
            {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": ""}]},
            "conversations[1].content",
            "empty",
        ),
        ({"instruction": "", "input": "", "output": "a"}, "instruction", "empty"),
    ],
)
def test_what_must_not_be_learned_is_rejected_with_a_reason(
    tmp_path: Path, record: dict[str, object], field: str, reason: str
) -> None:
    found = one(tmp_path, record).row

    assert isinstance(found, Rejected)
    assert found.field == field
    assert reason in found.reason


def test_an_instruction_is_part_of_the_input(tmp_path: Path) -> None:
    rows = [
        {"instruction": f"Translate to {language}.", "input": "Good morning", "output": output}
        for language, output in (("French", "Bonjour"), ("German", "Guten Morgen"))
    ]
    found = [read.row for read in read(tmp_path, *rows)]

    assert [row.input for row in found if isinstance(row, Example)] == [
        "Translate to French.\n\nGood morning",
        "Translate to German.\n\nGood morning",
    ]


def test_system_and_history_of_alpaca_stay_before_the_input(tmp_path: Path) -> None:
    row = one(tmp_path, {"instruction": "b", "output": "y", "system": "be short", "history": [["a", "x"]]}).row

    assert isinstance(row, Example)
    assert [(turn.role, turn.content) for turn in row.messages] == [
        ("system", "be short"),
        ("user", "a"),
        ("assistant", "x"),
        ("user", "b"),
    ]


def test_the_last_answer_with_a_weight_is_learned(tmp_path: Path) -> None:
    turns = [
        USER,
        {**ANSWER, "weight": 1},
        {"role": "user", "content": "more"},
        {**ANSWER, "content": "bad", "weight": 0},
    ]
    row = one(tmp_path, {"messages": turns}).row

    assert isinstance(row, Example)
    assert (row.input, row.output) == ("hi", "hello")


def test_an_answer_after_the_results_of_tools_is_learned(tmp_path: Path) -> None:
    turns = [
        USER,
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "content": "5", "tool_call_id": "1"},
        ANSWER,
    ]
    row = one(tmp_path, {"messages": turns, "tools": []}).row

    assert isinstance(row, Example)
    assert (row.input, row.output) == ("hi", "hello")
    assert [turn.role for turn in row.messages] == ["user", "assistant", "tool"]


def test_preferences_are_kept_and_their_wrong_answers_never_learned(tmp_path: Path) -> None:
    pair, wrong = read(
        tmp_path,
        {"prompt": "hi", "chosen": "hello", "rejected": "no"},
        {"prompt": "hi", "completion": "no", "label": False},
    )

    assert pair.preference is not None
    assert pair.preference.line == {
        "prompt": [USER],
        "chosen": [ANSWER],
        "rejected": [{"role": "assistant", "content": "no"}],
    }
    assert wrong.preference is not None
    assert wrong.preference.line["label"] is False
    assert isinstance(wrong.row, Rejected)


def test_the_spans_of_a_message_are_rows_each(tmp_path: Path) -> None:
    attributes = [
        {"key": "gen_ai.input.messages", "value": otlp(PARTS_IN)},
        {"key": "gen_ai.output.messages", "value": otlp(PARTS_OUT)},
    ]
    spans = [{"spanId": str(number), "attributes": attributes} for number in range(2)]
    other = {"spanId": "http", "attributes": [{"key": "http.method", "value": {"stringValue": "GET"}}]}
    found = read(tmp_path, {"resourceSpans": [{"scopeSpans": [{"spans": [*spans, other]}]}]})

    assert [row.row.id for row in found if isinstance(row.row, Example)] == ["0", "1"]
    assert len(found) == 3


def test_the_answer_of_an_api_is_a_list_of_rows(tmp_path: Path) -> None:
    found = read(tmp_path, {"object": "list", "data": [{"input": "hi", "output": "hello"}] * 2, "has_more": False})

    assert [row.row.output for row in found if isinstance(row.row, Example)] == ["hello", "hello"]


def test_a_mapping_names_the_columns(tmp_path: Path) -> None:
    record = {"question": "hi", "context": "about", "data": {"label": "hello"}, "output": "wrong", "key": 7}
    found = one(tmp_path, record, ("input=context+question", "output=data.label", "id=key"))

    assert isinstance(found.row, Example)
    assert (found.row.input, found.row.output, found.row.id) == ("about\n\nhi", "hello", "7")
    assert set(found.columns) - found.used == {"output"}

    missing = one(tmp_path, {"question": "hi"}, ("input=question", "output=answer")).row
    assert isinstance(missing, Rejected)
    assert (missing.field, missing.reason) == ("answer", "missing")


def test_several_schemas_in_one_file(tmp_path: Path) -> None:
    found = read(
        tmp_path, {"messages": [USER, ANSWER]}, {"input": "a", "output": "b"}, {"input": "a"}, {"colour": "red"}
    )

    assert [row.schema for row in found] == ["OpenAI chat", "input/output", None, None]
    assert [isinstance(row.row, Example) for row in found] == [True, True, False, False]


def test_production_traffic_cannot_be_claimed_by_a_file(tmp_path: Path) -> None:
    found = read(
        tmp_path, *({"input": "a", "output": "b", "source": name} for name in ("traffic", "traffic in doubt", "crm"))
    )

    assert [row.row.source for row in found if isinstance(row.row, Example)] == ["traffic-file", "traffic-file", "crm"]
    assert [row.renamed for row in found] == ["traffic", "traffic in doubt", None]


def test_an_answer_of_tool_calls_is_learned_as_such(tmp_path: Path) -> None:
    old = {"role": "assistant", "content": None, "function_call": {"name": "look", "arguments": ""}}
    new = {"role": "assistant", "tool_calls": [CALL]}
    tool = {"type": "function", "function": {"name": "look", "parameters": {}}}
    rows = [
        one(tmp_path, {"messages": [USER, new], "tools": [tool]}).row,
        one(tmp_path, {"messages": [USER, old], "functions": [tool["function"]]}).row,
        one(tmp_path, {"input": {"messages": [USER], "tools": [tool]}, "preferred_output": [new], "non_preferred_output": [ANSWER]}).row,
    ]  # fmt: skip
    for row in rows:
        assert isinstance(row, Example)
        assert (row.answers_with, row.output) == ("tool_calls", '[{"name": "look", "arguments": {}}]')
        assert json.loads(row.tools or "") == [tool]
        assert Example.model_validate_json(row.model_dump_json(exclude_defaults=True)) == row


def test_a_column_called_tools_that_lists_none_costs_nothing(tmp_path: Path) -> None:
    found = one(tmp_path, {"messages": [USER, ANSWER], "tools": "hammer"}).row
    assert isinstance(found, Example)
    assert (found.tools, found.answers_with) == (None, "text")
