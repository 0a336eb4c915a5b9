from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perpetune.output_schema import InvalidOutput, OutputSchema, schema_error

BOOKING: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "state": {"enum": ["open", "closed"]},
        "guests": {"type": "integer"},
        "price": {"type": "number"},
        "address": {"$ref": "#/$defs/address"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "rooms": {
            "type": "array",
            "items": {"type": "object", "properties": {"beds": {"type": "integer"}, "floor": {"type": "integer"}}},
        },
        "contact": {
            "anyOf": [
                {"type": "string"},
                {"type": "object", "properties": {"phone": {"type": "string"}, "day": {"format": "date"}}},
            ]
        },
    },
    "required": ["name"],
    "additionalProperties": False,
    "$defs": {"address": {"type": "object", "properties": {"street": {"type": "string"}, "no": {"type": "number"}}}},
}


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ('{"guests":2,"name":"Ana"}', '{"name": "Ana", "guests": 2}'),
        ('{"name":"A","guests":2.0,"price":2.0}', '{"name": "A", "guests": 2, "price": 2.0}'),
        (r'{"name": "Caf\u00e9 \"Blue\" \u007f"}', r'{"name": "Café \"Blue\" \u007f"}'),
        ('{"address": {"no": 1e-7, "street": "Weg"}, "name": "日本"}', None),
        ('{"rooms": [{"floor": 1, "beds": 2}], "name": "x", "tags": []}', None),
        ('{"contact": {"day": "2024-05-01", "phone": "1"}, "name": "x"}', None),
    ],
)
def test_outputs_are_written_as_the_grammar_takes_them(text: str, written: str | None) -> None:
    schema = OutputSchema(BOOKING)
    found = schema.canonical(text)
    assert written in (None, found)
    assert json.loads(found) == json.loads(text)
    assert schema.canonical(found) == found


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "not JSON: "),
        ('{"name": NaN}', "not JSON: NaN is not a JSON value"),
        ('{"name": "a", "name": "b"}', "not JSON: the key 'name' is there twice"),
        ('{"name": "x", "state": "shut"}', "state: 'shut' is not one of ['open', 'closed']"),
        ('{"name": "x", "rooms": [{"beds": 1}, {"beds": "two"}]}', "rooms[1].beds: 'two' is not of type 'integer'"),
        ('{"guests": 1}', "'name' is a required property"),
        ('{"name": "x", "age": 1}', "Additional properties are not allowed ('age' was unexpected)"),
        ('{"name": "x", "contact": {"day": "1.5.2024"}}', "contact: "),
        (r'{"name": "\ud83d"}', "cannot be written as JSON: "),
        ('{"name": "x", "price": 1e999}', "cannot be written as JSON: "),
    ],
)
def test_an_invalid_output_is_rejected_with_its_path(text: str, reason: str) -> None:
    with pytest.raises(InvalidOutput) as caught:
        OutputSchema(BOOKING).canonical(text)
    assert str(caught.value).startswith(reason)


@pytest.mark.parametrize(
    ("schema", "path", "why"),
    [
        ({"type": "object", "properties": {"a": {"type": "colour"}}}, ("properties", "a", "type"), "'colour'"),
        ({"not": {"type": "string"}}, (), "answers cannot be constrained to it: Unimplemented keys"),
        ({"$ref": "https://example.org/schema.json"}, (), "answers cannot be constrained to it"),
    ],
)
def test_a_schema_that_cannot_be_followed_is_no_schema(schema: dict[str, Any], path: tuple[str, ...], why: str) -> None:
    fault = schema_error(schema)
    assert fault is not None
    assert (fault[0], why in fault[1]) == (path, True)
    assert schema_error(BOOKING) is None


@given(
    st.fixed_dictionaries(
        {"name": st.text()},
        optional={
            "state": st.sampled_from(["open", "closed"]),
            "guests": st.integers(),
            "price": st.floats(allow_nan=False, allow_infinity=False),
            "tags": st.lists(st.text()),
            "address": st.dictionaries(st.just("street"), st.text()),
        },
    ),
    st.randoms(),
)
@settings(max_examples=200, deadline=None)
def test_any_object_can_be_written_whatever_the_order_of_its_keys(value: dict[str, Any], random: Any) -> None:
    keys = list(value)
    random.shuffle(keys)
    written = SCHEMA.canonical(json.dumps({key: value[key] for key in keys}))
    assert json.loads(written) == value
    assert list(json.loads(written)) == [key for key in BOOKING["properties"] if key in value]


SCHEMA = OutputSchema(BOOKING)
