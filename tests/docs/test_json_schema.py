"""A JSON Schema in words."""

from __future__ import annotations

from typing import Any

import pytest
from json_schema import default_text, models_in, type_text


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"type": "integer", "minimum": 1}, "whole number ≥ 1"),
        ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}, "number > 0 and < 1"),
        ({"type": "integer", "minimum": -(2**63), "maximum": 8}, "whole number ≤ 8"),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "text or null"),
        ({"enum": ["a", None, {}]}, "one of a, null, {}"),
        ({"enum": [None]}, "null"),
        ({"const": "auto"}, "auto"),
        ({"type": "array", "items": {"type": "string"}, "minItems": 1}, "list of text, at least 1"),
        ({"type": "array", "prefixItems": [{"type": "number"}, {"type": "number"}]}, "[number, number]"),
        ({"type": "object", "additionalProperties": {"type": "number"}}, "mapping to number"),
        ({"type": "object", "additionalProperties": True}, "mapping"),
        ({"$ref": "#/$defs/Lora"}, "[Lora]"),
        ({"type": "string", "pattern": "^a|b$"}, "text like `^a|b$`"),
        ({}, "anything"),
    ],
)
def test_types(schema: dict[str, Any], text: str) -> None:
    assert type_text(schema) == text


def test_defaults() -> None:
    assert default_text({"default": None}, False) == "null"
    assert default_text({}, True) == "required"
    assert default_text({}, False) == ""


def test_models() -> None:
    assert models_in({"anyOf": [{"$ref": "#/$defs/A"}, {"type": "null"}]}) == ["A"]
    assert models_in({"type": "string"}) == []
