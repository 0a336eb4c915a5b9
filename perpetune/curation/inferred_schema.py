"""Inferring a JSON Schema from outputs, as a proposal for task.output_schema."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from perpetune.output_schema import InvalidOutput, parsed, to_text

MAX_ENUM_VALUES = 10
ROWS_PER_VALUE = 5  # at least, on average, for an enumeration

_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", dict: "object", list: "array"}


def advice(outputs: Sequence[str]) -> str | None:
    """Advice with a schema to paste into params.yaml if all outputs are JSON objects, else None."""
    schema = inferred_schema(outputs)
    if schema is None:
        return None
    return (
        "all outputs are JSON objects: with task.output_schema, answers are always valid and scored by slot F1. "
        f"Check this schema, which the training rows satisfy, and paste it into params.yaml under task:\n"
        f"  output_schema: {to_text(schema)}"
    )


def inferred_schema(outputs: Sequence[str]) -> dict[str, Any] | None:
    """A schema that all outputs satisfy; None if there are none or one is no JSON object.

    Keys that all objects have are required. Strings become an enumeration if there are few values, each frequent.
    """
    try:
        values = [parsed(output) for output in outputs]
    except InvalidOutput:
        return None
    return _schema_of(values) if values and all(isinstance(value, dict) for value in values) else None


def _schema_of(values: Sequence[Any]) -> dict[str, Any]:
    types = {_TYPES.get(type(value), "null") for value in values}
    if types == {"object"}:
        return _schema_of_objects(values)
    if types == {"array"}:
        return {"type": "array", "items": _schema_of([item for value in values for item in value])}
    if types & {"object", "array"} or not types:
        return {}
    if types == {"string"} and len(set(values)) <= min(MAX_ENUM_VALUES, len(values) / ROWS_PER_VALUE):
        return {"enum": sorted(set(values))}
    if "number" in types:
        types.discard("integer")
    return {"type": sorted(types) if len(types) > 1 else types.pop()}


def _schema_of_objects(values: Sequence[dict[str, Any]]) -> dict[str, Any]:
    keys = dict.fromkeys(key for value in values for key in value)
    return {
        "type": "object",
        "properties": {key: _schema_of([value[key] for value in values if key in value]) for key in keys},
        "required": [key for key in keys if all(key in value for value in values)],
        "additionalProperties": False,
    }
