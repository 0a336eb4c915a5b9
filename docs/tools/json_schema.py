"""A JSON Schema in words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import inf
from typing import Any

Schema = Mapping[str, Any]
_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
_LARGEST = 2**53  # a bound beyond is that of 64 bits, which nobody meets
_TYPES = {"integer": "whole number", "string": "text", "boolean": "true or false", "object": "mapping"}


def type_text(schema: Schema) -> str:
    """The type with its bounds: `whole number ≥ 1 or auto`."""
    for union in ("anyOf", "oneOf"):
        if union in schema:
            return " or ".join(dict.fromkeys(type_text(each) for each in schema[union]))
    if "allOf" in schema:
        return " and ".join(type_text(each) for each in schema["allOf"])
    if "$ref" in schema:
        return f"[{ref_name(schema)}]"
    if "enum" in schema:
        values = [_value(each) for each in schema["enum"]]
        return values[0] if len(values) == 1 else "one of " + ", ".join(values)
    if "const" in schema:
        return _value(schema["const"])
    return _plain(schema)


def _value(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _plain(schema: Schema) -> str:
    kind = schema.get("type")
    if kind == "array":
        return _array(schema)
    if kind == "object" and isinstance(values := schema.get("additionalProperties"), dict) and values:
        return f"mapping to {type_text(values)}"
    name = _TYPES.get(str(kind), str(kind or "anything"))
    return " ".join([name, *_bounds(schema)])


def _array(schema: Schema) -> str:
    if "prefixItems" in schema:
        return "[" + ", ".join(type_text(each) for each in schema["prefixItems"]) + "]"
    least = f", at least {schema['minItems']}" if schema.get("minItems") else ""
    return f"list of {type_text(schema.get('items', {}))}{least}"


def _bounds(schema: Schema) -> list[str]:
    bounds = [f"{sign} {schema[name]:g}" for name, sign in _BOUNDS.items() if abs(schema.get(name, inf)) < _LARGEST]
    lengths = [f"of at least {schema['minLength']} character"] if schema.get("minLength") else []
    pattern = [f"like `{schema['pattern']}`"] if "pattern" in schema else []
    return [*([" and ".join(bounds)] if bounds else []), *lengths, *pattern]


def default_text(schema: Schema, required: bool) -> str:
    if "default" not in schema:
        return "required" if required else ""
    return json.dumps(schema["default"], ensure_ascii=False)


def ref_name(schema: Schema) -> str:
    return str(schema["$ref"]).rpartition("/")[2]


def models_in(schema: Schema) -> list[str]:
    """The names of the models that a value may be."""
    if "$ref" in schema:
        return [ref_name(schema)]
    return [ref_name(each) for union in ("anyOf", "oneOf") for each in schema.get(union, ()) if "$ref" in each]
