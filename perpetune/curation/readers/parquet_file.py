"""Reading Parquet in batches; a row with unreadable values is rejected alone."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow
import pyarrow.parquet

from perpetune.curation.readers.table import Row, Table, UnreadableRow, WantedColumns
from perpetune.errors import PerpetuneError

_BATCH = 2_000


def parquet_table(file: BinaryIO, path: Path, wanted: WantedColumns) -> Table:
    """The `wanted` columns of a Parquet file, so that a value in another column costs nothing.

    Numbers of a `ClassLabel` of Hugging Face's datasets become its names, -1 becomes null; binary text becomes text.
    Raises PerpetuneError if the file cannot be read.
    """
    try:
        data = pyarrow.parquet.ParquetFile(file)
        schema = data.schema_arrow
    except (pyarrow.ArrowException, OSError) as fault:
        raise _unreadable(fault, path) from None
    names = tuple(schema.names)
    read = wanted.of(names)
    return Table(names, _batches(data, [name for name in names if name in read], _class_names(schema), path))


def _batches(
    file: Any, columns: list[str], classes: Mapping[str, tuple[str, ...]], path: Path
) -> Iterator[Row | UnreadableRow]:
    start = 0
    try:
        for batch in file.iter_batches(_BATCH, columns=columns):
            yield from _rows(batch, start, classes)
            start += batch.num_rows
    except (pyarrow.ArrowException, OSError) as fault:
        raise _unreadable(fault, path) from None


def _unreadable(fault: Exception, path: Path) -> PerpetuneError:
    return PerpetuneError(f"not a readable Parquet file: {str(fault).splitlines()[0]}", where=str(path))


def _rows(
    batch: pyarrow.RecordBatch, start: int, classes: Mapping[str, tuple[str, ...]]
) -> Iterator[Row | UnreadableRow]:
    try:
        values = batch.to_pylist()
    except (ValueError, OverflowError, pyarrow.ArrowException) as fault:
        if batch.num_rows == 1:
            yield UnreadableRow(start + 1, "", f"unreadable values: {fault}")
            return
        # One value cannot be read: find its row by bisection.
        middle = batch.num_rows // 2
        yield from _rows(batch.slice(0, middle), start, classes)
        yield from _rows(batch.slice(middle), start + middle, classes)
        return
    for number, row in enumerate(values, start=start + 1):
        yield Row(number, None, {name: _plain(value, classes.get(name)) for name, value in row.items()})


def _plain(value: Any, names: tuple[str, ...] | None) -> Any:
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return value
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if names is None:
        return value
    if isinstance(value, list):
        return [_plain(each, names) for each in value]
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else None


def _class_names(schema: pyarrow.Schema) -> dict[str, tuple[str, ...]]:
    """The names of each column that is a ClassLabel, or a list of them, by the metadata that datasets writes."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {column: names for column, feature in features.items() if (names := _names(feature))}
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}


def _names(feature: Any) -> tuple[str, ...]:
    while isinstance(feature, Mapping) and "feature" in feature:
        feature = feature["feature"]
    if isinstance(feature, list) and len(feature) == 1:
        feature = feature[0]
    is_class = isinstance(feature, Mapping) and feature.get("_type") == "ClassLabel"
    return tuple(map(str, feature["names"])) if is_class and feature.get("names") else ()
