"""All schemas, and which one a record has."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence

from perpetune.curation.readers.schemas.argilla import ARGILLA, ARGILLA_CLASSIC, ARGILLA_COLUMNS
from perpetune.curation.readers.schemas.instruction import ALPACA, DOLLY
from perpetune.curation.readers.schemas.label_studio import LABEL_STUDIO, LABEL_STUDIO_FLAT
from perpetune.curation.readers.schemas.langfuse import LANGFUSE
from perpetune.curation.readers.schemas.mapped import mapped
from perpetune.curation.readers.schemas.opentelemetry import OPENTELEMETRY, spans
from perpetune.curation.readers.schemas.plain import CHAT, COMPLETION, PLAIN
from perpetune.curation.readers.schemas.preference import OPENAI_PAIR, PAIR
from perpetune.curation.readers.schemas.schema import INPUT_NAMES, OUTPUT_NAMES, OWN_FIELDS, Schema, Values
from perpetune.curation.readers.schemas.sharegpt import SHAREGPT
from perpetune.curation.readers.schemas.stored_completion import STORED_COMPLETION
from perpetune.curation.readers.table import Row, WantedColumns

SCHEMAS = (
    PAIR,
    OPENAI_PAIR,
    STORED_COMPLETION,
    OPENTELEMETRY,
    LABEL_STUDIO,
    ARGILLA,
    ARGILLA_COLUMNS,
    SHAREGPT,
    CHAT,
    LABEL_STUDIO_FLAT,
    ARGILLA_CLASSIC,
    LANGFUSE,
    ALPACA,
    DOLLY,
    PLAIN,
    COMPLETION,
)
"""The most specific first."""

_ANY_COLUMNS = (LABEL_STUDIO_FLAT, ARGILLA_COLUMNS)
"""Their columns are named after what was annotated."""

_LISTS = ("data", "rows", "items", "records", "examples", "results", "observations")


def schemas_of(columns: Mapping[str, tuple[str, ...]]) -> tuple[Schema, ...]:
    """The schemas to try: that of the user's `columns`, if there are any, or all."""
    return (mapped(columns),) if columns else SCHEMAS


def schema_of(values: Values, schemas: Sequence[Schema]) -> Schema | None:
    """The schema of a record; None if it fits none."""
    return next((schema for schema in schemas if schema.fits(values)), None)


def wanted_columns(schemas: Sequence[Schema]) -> WantedColumns:
    """The columns of the schemas that a header may have; all if it fits none."""
    known = frozenset(
        {name for schema in schemas for name in schema.columns}.union(OWN_FIELDS, INPUT_NAMES, OUTPUT_NAMES)
    )

    def of(columns: tuple[str, ...]) -> Container[str]:
        shapes: tuple[object, ...] = ("text", {}, [])
        fitting = [schema for schema in schemas if any(schema.fits(dict.fromkeys(columns, each)) for each in shapes)]
        if not fitting or any(schema in _ANY_COLUMNS for schema in fitting):
            return columns
        return {name for schema in fitting for name in schema.columns}.union(OWN_FIELDS)

    return WantedColumns(known, of)


def expanded(row: Row, schemas: Sequence[Schema]) -> Iterator[Row]:
    """The records in a row: the spans of a message of OpenTelemetry, the list of an answer of an API, or itself."""
    inner = spans(row.values)
    if inner is None and schema_of(row.values, schemas) is None:
        lists = [row.values[name] for name in _LISTS if _is_list_of_objects(row.values.get(name))]
        inner = lists[0] if len(lists) == 1 and isinstance(lists[0], list) else None
    if inner is None:
        yield row
        return
    for values in inner:
        yield Row(row.line, None, values)


def _is_list_of_objects(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(each, Mapping) for each in value)
