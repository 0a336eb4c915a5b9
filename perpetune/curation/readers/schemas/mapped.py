"""Columns that the user named: `--map input=question`, `--map input=context+question`, `--map input=data.text`."""

from __future__ import annotations

from collections.abc import Mapping

from perpetune.curation.readers.row import InvalidRow, is_absent
from perpetune.curation.readers.schemas.messages import exchange
from perpetune.curation.readers.schemas.schema import OWN_FIELDS, Converted, Schema, Values, own_fields, paragraphs

FIELDS = ("input", "output", "messages", *OWN_FIELDS)

_MISSING = object()


def mapped(columns: Mapping[str, tuple[str, ...]]) -> Schema:
    """The schema that takes each field from these columns; several of them become paragraphs."""

    def convert(values: Values) -> Converted:
        given = {
            name: values[name] for name in ("input", "output", "messages") if name in values and name not in columns
        }
        new = own_fields(values) | given | {name: _joined(values, sources) for name, sources in columns.items()}
        if isinstance(new.get("input"), (list, dict)):
            new |= exchange(new.pop("input"), new.pop("output", None))
        read = {
            source.split(".")[0] if source not in values else source for each in columns.values() for source in each
        }
        return Converted(new, frozenset(read | given.keys() | own_fields(values).keys()))

    names = {source for sources in columns.values() for source in sources}
    return Schema(
        "--map",
        frozenset({*names, *(name.split(".")[0] for name in names), "input", "output", "messages"}),
        lambda values: True,
        convert,
        {name: "+".join(sources) for name, sources in columns.items()},
    )


def _joined(values: Values, sources: tuple[str, ...]) -> object:
    found = [_at(values, source) for source in sources]
    if all(value is _MISSING for value in found):
        raise InvalidRow("+".join(sources), "missing")
    return found[0] if len(found) == 1 else paragraphs(*(value for value in found if value is not _MISSING))


def _at(values: Values, path: str) -> object:
    """The value of a column, or at a path such as `data.text`."""
    if path in values:
        return values[path]
    first, _, rest = path.partition(".")
    inner = values.get(first)
    if rest and isinstance(inner, Mapping):
        return _at(inner, rest)
    return _MISSING if is_absent(inner) or rest else inner
