from __future__ import annotations

import json

import yaml

from perpetune.curation.inferred_schema import advice, inferred_schema
from perpetune.output_schema import OutputSchema, schema_error


def test_what_rows_have_in_common_is_the_schema() -> None:
    rows: list[dict[str, object]] = [
        {"name": f"n{number}", "size": "small" if number % 2 else "large", "price": number / 2, "tags": ["é"] * number}
        for number in range(12)
    ]
    rows += [{"name": "x", "size": "large", "price": 3, "seats": {"inside": 2, "note": None}, "tags": []}]
    found = inferred_schema([json.dumps(row) for row in rows])

    assert found == {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "size": {"enum": ["large", "small"]},
            "price": {"type": "number"},
            "tags": {"type": "array", "items": {"enum": ["é"]}},
            "seats": {
                "type": "object",
                "properties": {"inside": {"type": "integer"}, "note": {"type": "null"}},
                "required": ["inside", "note"],
                "additionalProperties": False,
            },
        },
        "required": ["name", "size", "price", "tags"],
        "additionalProperties": False,
    }
    assert schema_error(found) is None
    for row in rows:
        OutputSchema(found).canonical(json.dumps(row))


def test_other_text_has_none() -> None:
    assert inferred_schema(['{"a": 1}', "a: 1"]) is inferred_schema(["[1]"]) is inferred_schema([]) is None
    assert inferred_schema(['{"a": 1}', '{"a": {"b": 1}}', '{"a": []}']) == {
        "type": "object",
        "properties": {"a": {}},
        "required": ["a"],
        "additionalProperties": False,
    }


def test_the_advice_can_be_pasted() -> None:
    said = advice(['{"a: b": "{é}", "n": 1}', '{"n": null}'])
    assert said is not None
    pasted = yaml.safe_load(said.splitlines()[-1])["output_schema"]
    assert pasted == inferred_schema(['{"a: b": "{é}", "n": 1}', '{"n": null}'])
    assert advice(["good"]) is None
