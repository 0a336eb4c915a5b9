"""Reading a file of examples. Invalid rows are rejected one by one; only an unusable file is an error."""

from __future__ import annotations

import json
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from perpetune.curation.quarantine import Rejected
from perpetune.curation.readers.addresses.compressed import opened, without_compression
from perpetune.curation.readers.file_format import SUFFIXES as SUFFIXES
from perpetune.curation.readers.file_format import table_of
from perpetune.curation.readers.identity import unrelated_ids, with_content_id
from perpetune.curation.readers.jsonl_file import columns_of, no_object
from perpetune.curation.readers.options import ReadOptions
from perpetune.curation.readers.row import InvalidRow, example_of
from perpetune.curation.readers.schemas.catalogue import expanded, schema_of, schemas_of, wanted_columns
from perpetune.curation.readers.schemas.schema import (
    INPUT_NAMES,
    OUTPUT_NAMES,
    OWN_FIELDS,
    Converted,
    Preference,
    Schema,
)
from perpetune.curation.readers.table import Row, Table, UnreadableRow, WantedColumns
from perpetune.curation.rows.sources import IN_DOUBT, TRAFFIC
from perpetune.curation.text import shortened
from perpetune.errors import PerpetuneError
from perpetune.records import Example

FIELDS = ("input", "output", "messages", *OWN_FIELDS)
TRAFFIC_FILE = "traffic-file"
"""The source of rows that claim to be production traffic, which only the prediction log can say."""

_DEFAULT = ReadOptions()


@dataclass(frozen=True)
class ReadResult:
    """The examples of a file, and its rejected rows."""

    examples: tuple[Example, ...]
    rejected: tuple[Rejected, ...]


@dataclass(frozen=True)
class ReadRow:
    """One record: an example, or why it is none; its schema, all its columns and those used.

    `renamed` is the source that the row claimed and may not.
    """

    row: Example | Rejected
    schema: str | None = None
    columns: tuple[str, ...] = ()
    used: frozenset[str] = frozenset()
    preference: Preference | None = None
    renamed: str | None = None


def read_examples(path: Path, source: str, options: ReadOptions = _DEFAULT) -> ReadResult:
    """Read a file of any format and schema.

    `source` is for rows without a `source`. Invalid rows are returned with line, field and reason. An id that unrelated
    rows share is replaced by the hash of the row. Raises PerpetuneError if the whole file is unusable: missing, empty, of
    another format than its suffix, or without columns that can be used.
    """
    with opened_table(path, options) as table:
        rows = [read.row for read in read_rows(table, path, source, options)]
    examples = tuple(row for row in rows if isinstance(row, Example))
    unrelated = unrelated_ids(lambda: iter(examples))
    return ReadResult(
        examples=tuple(with_content_id(row) if row.id in unrelated else row for row in examples),
        rejected=tuple(row for row in rows if isinstance(row, Rejected)),
    )


@contextmanager
def opened_table(path: Path, options: ReadOptions = _DEFAULT, shown: Path | None = None) -> Iterator[Table]:
    """The rows of a file, as they are read; `shown` is its name in messages. Raises PerpetuneError."""
    with opened(path) as file:
        yield table_of(file, without_compression(shown or path), wanted_columns(schemas_of(options.columns)), options)


def read_rows(table: Table, path: Path, source: str, options: ReadOptions = _DEFAULT) -> Iterator[ReadRow]:
    """Each record of a table, as an example or rejected. Raises PerpetuneError if none has columns that can be used."""
    schemas = schemas_of(options.columns)
    _refuse_repeated(table.columns, schemas, path)
    seen = _Seen()
    for row in table.rows:
        for record in expanded(row, schemas) if isinstance(row, Row) else (row,):
            read = _read(record, path, source, schemas)
            if not seen.usable:
                seen.add(record, read.schema)
            yield read
    if not seen.usable:
        _refuse(table, seen, schemas, path)


def read_table(path: Path, wanted: Container[str]) -> Table:
    """The unvalidated rows of a file with our own fields; of Parquet only the `wanted` columns.

    Raises PerpetuneError as `read_examples`.
    """
    with opened(path) as file:
        found = table_of(file, without_compression(path), WantedColumns(frozenset(FIELDS), lambda _: wanted), _DEFAULT)
        rows = tuple(found.rows)
    columns = found.columns or columns_of(rows, path)
    _refuse_repeated(columns, schemas_of({}), path)
    if not {"input", "output"} <= set(columns) and "messages" not in columns:
        raise _no_columns(columns, path)
    return Table(columns, rows, found.notes)


def rejected(row: Row | UnreadableRow, path: Path, reason: str, field: str | None = None) -> Rejected:
    """The rejected row, with its content."""
    raw = row.raw or (json.dumps(row.values, ensure_ascii=False, default=str) if isinstance(row, Row) else "")
    return Rejected(file=path.name, line=row.line, field=field, reason=reason, raw=shortened(raw))


def _read(row: Row | UnreadableRow, path: Path, source: str, schemas: Sequence[Schema]) -> ReadRow:
    if isinstance(row, UnreadableRow):
        return ReadRow(rejected(row, path, row.reason))
    columns = tuple(row.values)
    schema = schema_of(row.values, schemas)
    name = schema.name if schema else None
    used: frozenset[str] = frozenset()
    preference = None
    try:
        found = schema.convert(row.values) if schema else _unknown(row.values)
        used, preference = found.used, found.preference
        if found.wrong:
            raise InvalidRow(*found.wrong)
        example = example_of(found.values, source)
    except InvalidRow as fault:
        field = _own_name(fault.field, schema)
        return ReadRow(rejected(row, path, fault.reason, field), name, columns, used, preference)
    if example.source in (TRAFFIC, IN_DOUBT) and source != TRAFFIC:
        claimed = example.source
        renamed = example.model_copy(update={"source": TRAFFIC_FILE})
        return ReadRow(renamed, name, columns, used, preference, claimed)
    return ReadRow(example, name, columns, used, preference)


def _unknown(values: Mapping[str, object]) -> Converted:
    """A record without schema: what it lacks is found when it is validated."""
    return Converted(values, frozenset(values.keys() & set(FIELDS)))


def _own_name(field: str | None, schema: Schema | None) -> str | None:
    """The field as it is called in the file: `messages[1].content` of ShareGPT is `conversations[1].content`."""
    if field is None or schema is None:
        return field
    ours = field.split("[")[0].split(".")[0]
    return schema.fields.get(ours, ours) + field[len(ours) :]


def _refuse_repeated(columns: tuple[str, ...], schemas: Sequence[Schema], path: Path) -> None:
    wanted = wanted_columns(schemas).of(columns)
    twice = next((name for name in columns if name and name in wanted and columns.count(name) > 1), None)
    if twice:
        raise PerpetuneError(f"the column `{twice}` occurs twice", where=str(path), do="rename or remove one of them")


class _Seen:
    """What a file has until the first record with a schema: its keys, and its unreadable records."""

    def __init__(self) -> None:
        self.usable = False
        self.columns: dict[str, None] = {}
        self.unreadable = 0
        self.first: UnreadableRow | None = None

    def add(self, record: Row | UnreadableRow, schema: str | None) -> None:
        self.usable = schema is not None
        if isinstance(record, Row):
            self.columns |= dict.fromkeys(record.values)
        else:
            self.unreadable += 1
            self.first = self.first or record


def _refuse(table: Table, seen: _Seen, schemas: Sequence[Schema], path: Path) -> None:
    """Raise PerpetuneError unless the columns could be used if there were rows."""
    columns = table.columns or tuple(seen.columns)
    if not columns and seen.first:
        raise no_object(seen.first, seen.unreadable, path)
    if not columns:
        raise PerpetuneError("the file has no rows", where=str(path), do="add at least one example")
    if schema_of(dict.fromkeys(columns, ""), schemas) is None:
        raise _no_columns(columns, path)


def _no_columns(columns: tuple[str, ...], path: Path) -> PerpetuneError:
    missing = [f"`{name}`" for name in ("input", "output") if name not in columns]
    none = "there is no column" if len(missing) == 1 else "there are no columns"
    found = ", ".join(f"`{shortened(name, 40)}`" for name in columns[:20]) or "none"
    return PerpetuneError(
        f"{none} {' and '.join(missing)}; the columns are: {found}", where=str(path), do=_advice(columns, path)
    )


def _advice(columns: tuple[str, ...], path: Path) -> str:
    if len(columns) == 1 and any(mark in columns[0] for mark in ";\t|, "):
        return "say what separates the columns: --separator"
    answer = _likeliest(columns, OUTPUT_NAMES)
    rest = tuple(name for name in columns if name != answer)
    asked = _likeliest(rest, INPUT_NAMES)
    context = next(
        (name for name in rest if name.lower() in ("context", "passage", "document") and name != asked), None
    )
    pairs = [("input", f"{context}+{asked}" if context and asked else asked), ("output", answer)]
    said = " ".join(f"--map {wanted}={found or 'COLUMN'}" for wanted, found in pairs if found != wanted)
    return f"say which columns to use: {said}"


def _likeliest(columns: Sequence[str], names: Sequence[str]) -> str | None:
    """The column that most likely has the missing values, by common names."""
    by_name = {column.lower(): column for column in columns}
    return next((by_name[name] for name in names if name in by_name), None)
