"""The JSON Schema of a task's outputs: validate the schema, validate outputs, and write them in canonical form.

Decoding is constrained by a grammar made from the schema (llguidance; Willard and Louf 2023, arXiv:2307.09702). The
grammar accepts an object's keys only in the schema's order, so training data must have them in that order.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

Schema = Mapping[str, Any]
Path = tuple[str | int, ...]

# Without a limit a model can generate whitespace forever.
WHITESPACE = r"[ \n\t]{0,20}"
_DELETE = "\x7f"  # the one control character that json.dumps does not escape and the grammar rejects


class InvalidOutput(Exception):
    """A text is not a valid output of the task; the message names the path: "items[0].price: 'x' is not of type 'number'"."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{position(path)}: {reason}" if path else reason)


class OutputSchema:
    """A compiled JSON Schema that validates outputs. `schema` must be one for which `schema_error` returns None."""

    def __init__(self, schema: Schema) -> None:
        # Imported late: it takes almost a second, and most tasks have no schema.
        import referencing
        from jsonschema import validators

        kind = validators.validator_for(schema, default=validators.Draft202012Validator)
        self._schema = schema
        # An empty registry, so that nothing is fetched from the addresses in a schema.
        self._validator = kind(schema, registry=referencing.Registry(), format_checker=kind.FORMAT_CHECKER)
        self._matcher = _matcher(schema)

    def parsed(self, text: str) -> object:
        """The value of a JSON text. Raises InvalidOutput if it is not JSON or violates the schema."""
        value = parsed(text)
        fault = next(self._validator.iter_errors(value), None)
        if fault is not None:
            raise InvalidOutput(tuple(fault.absolute_path), fault.message)
        return value

    def canonical(self, text: str) -> str:
        """The text as constrained decoding would write it. Raises InvalidOutput if it is invalid or cannot be written.

        Keys are in the schema's order, then other keys as they came; separators are ", " and ": "; no ASCII escapes.
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
            raise InvalidOutput((), f"satisfies the schema, but its grammar stops before {rest[:40]!r}")
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
        """Subschemas that apply to the value: all of allOf, and the first match of anyOf and oneOf."""
        yield from schema.get("allOf", ())
        for choices in (schema.get("anyOf", ()), schema.get("oneOf", ())):
            yield from [part for part in choices if self._validator.evolve(schema=part).is_valid(value)][:1]

    def _resolved(self, schema: Any) -> Any:
        """The target of a `$ref` into the schema itself; keywords beside the `$ref` are ignored."""
        while isinstance(schema, Mapping) and str(schema.get("$ref", "")).startswith("#"):
            found: Any = self._schema
            for part in schema["$ref"].split("/")[1:]:
                part = part.replace("~1", "/").replace("~0", "~")
                found = found[int(part)] if isinstance(found, Sequence) else found[part]
            schema = found
        return schema


def schema_error(schema: Schema) -> tuple[Path, str] | None:
    """The path and reason if a schema is invalid or no grammar can be made from it; None if it is valid."""
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
    """llguidance's grammar of a schema given as JSON text. Raises ValueError if it cannot be made."""
    from llguidance import LLMatcher

    return str(LLMatcher.grammar_from_json_schema(schema, defaults={"whitespace_pattern": WHITESPACE}))


def to_text(schema: Schema) -> str:
    """The schema as JSON text, as `Generation.json_schema` takes it."""
    return json.dumps(schema, ensure_ascii=False)


def parsed(text: str) -> object:
    """The value of a JSON text. Raises InvalidOutput if it is not JSON, or has a key with several values."""
    try:
        return json.loads(text, parse_constant=_no_constant, object_pairs_hook=_unambiguous)
    except (ValueError, RecursionError) as fault:
        raise InvalidOutput((), f"not JSON: {fault}") from None


def _unambiguous(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """The object with these keys. Raises ValueError if a key has several values: none is known to be the right one."""
    found = dict(pairs)
    for key, value in pairs if len(found) < len(pairs) else ():
        if value != found[key]:
            raise ValueError(f"the key {key!r:.40} is there twice, with different values")
    return found


def position(path: Path) -> str:
    """A path as text, such as items[0].price."""
    steps = [f"[{step}]" if isinstance(step, int) else f".{step}" for step in path]
    return "".join(steps).removeprefix(".")


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


def _matcher(schema: Schema) -> Any:
    from llguidance import LLMatcher, LLTokenizer

    return LLMatcher(LLTokenizer("byte"), grammar(to_text(schema)), log_level=0)
