"""The JSON Schema of a task's outputs: whether it is one, whether a text satisfies it, and how such a text is written.

An answer is written under a grammar made of the schema (llguidance; Willard and Louf 2023, arXiv:2307.09702). The grammar
takes the keys of an object in the schema's order alone, so what a model is trained on must have them in that order.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

Schema = Mapping[str, Any]
Path = tuple[str | int, ...]

# Without a limit a model can write space for ever.
WHITESPACE = r"[ \n\t]{0,20}"
_DELETE = "\x7f"  # the one control character that Python writes as it is and the grammar does not take


class InvalidOutput(Exception):
    """Why a text is no output of the task, and where in it: "items[0].price: 'x' is not of type 'number'"."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{position(path)}: {reason}" if path else reason)


class OutputSchema:
    """A schema ready to check texts. `schema` is one in which `schema_error` finds nothing."""

    def __init__(self, schema: Schema) -> None:
        # It takes the better part of a second to import, and most tasks have no schema.
        import referencing
        from jsonschema import validators

        kind = validators.validator_for(schema, default=validators.Draft202012Validator)
        self._schema = schema
        # With a registry of its own nothing is fetched from the addresses in a schema.
        self._validator = kind(schema, registry=referencing.Registry(), format_checker=kind.FORMAT_CHECKER)
        self._matcher = _matcher(schema)

    def parsed(self, text: str) -> object:
        """The value of a JSON text that satisfies the schema. Raises BadOutput."""
        value = parsed(text)
        fault = next(self._validator.iter_errors(value), None)
        if fault is not None:
            raise InvalidOutput(tuple(fault.absolute_path), fault.message)
        return value

    def canonical(self, text: str) -> str:
        """The text as the grammar lets a model write it. Raises BadOutput where it is invalid, or cannot be written.

        Keys in the schema's order, then others as they came; ", " and ": " between them; no ASCII escapes.
        """
        value = self._arranged(self.parsed(text), self._schema)
        try:
            written = json.dumps(value, ensure_ascii=False, allow_nan=False).replace(_DELETE, "\\u007f")
            letters = list(written.encode())
        except ValueError as fault:
            raise InvalidOutput((), f"cannot be written as JSON: {fault}") from None
        self._matcher.reset()
        taken = self._matcher.try_consume_tokens(letters)
        if taken < len(letters) or not self._matcher.is_accepting():
            rest = written.encode()[taken:].decode(errors="ignore")
            raise InvalidOutput((), f"satisfies the schema, but the grammar made of it stops before {rest[:40]!r}")
        return written

    def _arranged(self, value: Any, schema: Any) -> Any:
        schema = self._resolved(schema)
        if not isinstance(schema, Mapping):
            return value
        for one in (*schema.get("enum", ()), *([schema["const"]] if "const" in schema else [])):
            if type(one) is type(value) and one == value:
                return one
        for part in self._parts(value, schema):
            value = self._arranged(value, part)
        if isinstance(value, dict):
            return self._in_order(value, schema)
        if isinstance(value, list):
            first = schema.get("prefixItems", ())
            parts = [*first, *[schema.get("items")] * (len(value) - len(first))]
            return [self._arranged(one, part) for one, part in zip(value, parts, strict=False)]
        whole = isinstance(value, float) and value.is_integer() and schema.get("type") == "integer"
        return int(value) if whole else value

    def _in_order(self, value: dict[str, Any], schema: Schema) -> dict[str, Any]:
        named = schema.get("properties", {})
        keys = [*(key for key in named if key in value), *(key for key in value if key not in named)]
        others = schema.get("additionalProperties")
        return {key: self._arranged(value[key], named.get(key, others)) for key in keys}

    def _parts(self, value: object, schema: Schema) -> Iterator[Any]:
        """What else the value satisfies: all of allOf, and the first that fits of anyOf and oneOf."""
        yield from schema.get("allOf", ())
        for choices in (schema.get("anyOf", ()), schema.get("oneOf", ())):
            yield from [part for part in choices if self._validator.evolve(schema=part).is_valid(value)][:1]

    def _resolved(self, schema: Any) -> Any:
        """What a `$ref` into the schema itself points to; what is beside it is passed over."""
        while isinstance(schema, Mapping) and str(schema.get("$ref", "")).startswith("#"):
            found: Any = self._schema
            for part in schema["$ref"].split("/")[1:]:
                part = part.replace("~1", "/").replace("~0", "~")
                found = found[int(part)] if isinstance(found, Sequence) else found[part]
            schema = found
        return schema


def schema_error(schema: Schema) -> tuple[Path, str] | None:
    """Where a schema is none, or asks for what no grammar can be made of, and why; None where it is well."""
    from jsonschema import SchemaError, validators

    kind = validators.validator_for(schema, default=validators.Draft202012Validator)
    try:
        kind.check_schema(schema)
    except SchemaError as fault:
        return tuple(fault.absolute_path), fault.message
    from llguidance import LLMatcher

    why = LLMatcher.validate_grammar(grammar(to_text(schema)), None)
    return ((), f"answers cannot be constrained to it: {why}") if why else None


def grammar(schema: str) -> str:
    """The grammar, as llguidance reads it, of the JSON text of a schema. Raises ValueError."""
    from llguidance import LLMatcher

    return str(LLMatcher.grammar_from_json_schema(schema, defaults={"whitespace_pattern": WHITESPACE}))


def to_text(schema: Schema) -> str:
    """The schema as JSON: what `Generation.json_schema` takes."""
    return json.dumps(schema, ensure_ascii=False)


def parsed(text: str) -> object:
    """The value of a JSON text. Raises BadOutput."""
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as fault:
        raise InvalidOutput((), f"not JSON: {fault}") from None


def position(path: Path) -> str:
    """A path as people write it: items[0].price."""
    steps = [f"[{step}]" if isinstance(step, int) else f".{step}" for step in path]
    return "".join(steps).removeprefix(".")


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value")


def _matcher(schema: Schema) -> Any:
    from llguidance import LLMatcher, LLTokenizer

    return LLMatcher(LLTokenizer("byte"), grammar(to_text(schema)), log_level=0)
