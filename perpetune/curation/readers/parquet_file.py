"""Reading Parquet; a row with unreadable values is rejected alone."""

from __future__ import annotations

import io
from collections.abc import Container
from pathlib import Path

import pyarrow
import pyarrow.parquet

from perpetune.curation.readers.table import Row, Table, UnreadableRow
from perpetune.errors import PerpetuneError


def parquet_table(data: bytes, path: Path, wanted: Container[str]) -> Table:
    """The `wanted` columns of a Parquet file. Raises PerpetuneError if it cannot be read."""
    try:
        file = pyarrow.parquet.ParquetFile(io.BytesIO(data))
        names = file.schema_arrow.names
        table = file.read(columns=[name for name in names if name in wanted])
    except (pyarrow.ArrowException, OSError) as fault:
        raise PerpetuneError(f"not a readable Parquet file: {str(fault).splitlines()[0]}", where=str(path)) from None
    rows: list[Row | UnreadableRow] = []
    for batch in table.to_batches(max_chunksize=10_000):
        rows += _rows(batch, len(rows))
    return Table(tuple(names), tuple(rows))


def _rows(batch: pyarrow.RecordBatch, start: int) -> list[Row | UnreadableRow]:
    try:
        return [Row(start + position, None, values) for position, values in enumerate(batch.to_pylist(), start=1)]
    except (ValueError, pyarrow.ArrowException) as fault:
        if batch.num_rows == 1:
            return [UnreadableRow(start + 1, "", f"unreadable values: {fault}")]
    # One value cannot be read: find its row by bisection.
    middle = batch.num_rows // 2
    return _rows(batch.slice(0, middle), start) + _rows(batch.slice(middle), start + middle)
