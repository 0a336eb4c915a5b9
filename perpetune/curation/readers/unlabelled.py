"""Rows without an output, in any format that rows with one may have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from perpetune.curation.quarantine import Rejected
from perpetune.curation.readers.identity import has_content_id, with_content_id
from perpetune.curation.readers.options import ReadOptions
from perpetune.curation.readers.reader import opened_table, rejected
from perpetune.curation.readers.row import InvalidRow, example_of
from perpetune.curation.readers.schemas.annotated import shown_text
from perpetune.curation.readers.schemas.catalogue import expanded, schema_of, schemas_of
from perpetune.curation.readers.schemas.mapped import mapped
from perpetune.curation.readers.schemas.messages import exchange, parsed
from perpetune.curation.readers.schemas.schema import OUTPUT_NAMES, OWN_FIELDS, Schema, Values, own_fields
from perpetune.curation.readers.table import Row, UnreadableRow
from perpetune.records import Example

_ANY = "?"  # stands for the output while a row is validated
_DEFAULT = ReadOptions()


@dataclass(frozen=True)
class UnlabelledRows:
    """Rows without an output, as examples with an empty one; rejected rows; and how many rows have an output."""

    rows: tuple[Example, ...]
    rejected: tuple[Rejected, ...]
    labelled: int


def read_unlabelled(
    path: Path, source: str, options: ReadOptions = _DEFAULT, shown: Path | None = None
) -> UnlabelledRows:
    """Read the rows of a file that have no output. Rows with one id get the hash of their content.

    `shown` is the file's name in messages. Raises PerpetuneError if the file cannot be read.
    """
    schemas = schemas_of(options.columns)
    asked = {name: columns for name, columns in options.columns.items() if name != "output"}
    own = mapped(asked) if asked else None
    with opened_table(path, options, shown) as table:
        records = [each for row in table.rows for each in (expanded(row, schemas) if isinstance(row, Row) else (row,))]
    read = [_read(record, schemas, own, source, shown or path) for record in records]
    rows = [row for row in read if isinstance(row, Example)]
    return UnlabelledRows(
        tuple(_with_unique_ids(rows)),
        tuple(row for row in read if isinstance(row, Rejected)),
        sum(row is None for row in read),
    )


def labelled_as(row: Example, label: str) -> Example:
    """The row with this output; a row without an id of its own has the hash of its new content."""
    found = row.model_copy(update={"output": label})
    return with_content_id(found) if has_content_id(row) else found


def _read(
    record: Row | UnreadableRow, schemas: Sequence[Schema], own: Schema | None, source: str, path: Path
) -> Example | Rejected | None:
    """The record without an output; None if it has one."""
    if isinstance(record, UnreadableRow):
        return rejected(record, path, record.reason)
    try:
        found = _fields(record.values, schemas, own)
        return None if found is None else _unlabelled(found, source)
    except InvalidRow as fault:
        return rejected(record, path, fault.reason, fault.field)


def _fields(values: Values, schemas: Sequence[Schema], own: Schema | None) -> dict[str, object] | None:
    """Our own fields of the record, with an output that stands for any; None if the record has an output already.

    `own` is the schema of the columns that the user named, without that of the output.
    """
    schema = schema_of(values, schemas)
    if schema and _has_output(schema, values):
        return None
    if own:
        return {**own.convert(values).values, "output": _ANY}
    return own_fields(values) | exchange(_asked(values), _ANY)


def _has_output(schema: Schema, values: Values) -> bool:
    try:
        example_of(schema.convert(values).values, "any")
    except InvalidRow:
        return False
    return True


def _asked(values: Values) -> object:
    """The text or conversation that is to be answered."""
    if "messages" in values:
        return parsed(values["messages"])
    texts: Mapping[str, object] = {
        name: parsed(value) if name == "input" else value
        for name, value in values.items()
        if name not in (*OWN_FIELDS, *OUTPUT_NAMES)
    }
    return shown_text(texts, "row")[1]


def _unlabelled(fields: Mapping[str, object], source: str) -> Example:
    row = example_of(fields, source)
    bare = row.model_copy(update={"output": "", "references": ()})
    return with_content_id(bare) if has_content_id(row) else bare


def _with_unique_ids(rows: Sequence[Example]) -> Iterator[Example]:
    first: dict[str, str] = {}
    shared = {row.id for row in rows if first.setdefault(row.id, row.input) != row.input}
    for row in rows:
        yield with_content_id(row) if row.id in shared else row
