"""The format of a file, by its first bytes and its suffix, and its table."""

from __future__ import annotations

import io
from pathlib import Path
from typing import BinaryIO, Literal

from perpetune.curation.readers.csv_file import csv_table
from perpetune.curation.readers.jsonl_file import json_table
from perpetune.curation.readers.options import ReadOptions
from perpetune.curation.readers.table import Table, WantedColumns
from perpetune.curation.readers.text_encoding import encoding_of
from perpetune.errors import PerpetuneError

Format = Literal["json", "csv", "parquet", "excel"]

_BY_SUFFIX: dict[str, Format] = {
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".tab": "csv",
    ".parquet": "parquet",
    ".xlsx": "excel",
    ".xlsm": "excel",
}
SUFFIXES = tuple(_BY_SUFFIX)


def table_of(file: BinaryIO, path: Path, wanted: WantedColumns, options: ReadOptions) -> Table:
    """The rows of an open file, which `path` names; only the `wanted` columns matter.

    Raises PerpetuneError if it is empty or of no known format.
    """
    kind = _format(file, path, wanted, options)
    if kind == "parquet":
        # Late: pyarrow is slow to import, and most workspaces have no Parquet.
        from perpetune.curation.readers.parquet_file import parquet_table

        return parquet_table(file, path, wanted)
    if kind == "excel":
        from perpetune.curation.readers.excel_file import excel_table

        return excel_table(file, path, options.sheet)
    if options.sheet is not None:
        raise PerpetuneError("only an Excel workbook has sheets", where=str(path), do="leave out --sheet")
    encoding = encoding_of(file, options.encoding)
    if kind == "csv":
        table = csv_table(file, encoding, path, wanted, options.separator)
    else:
        table = json_table(file, encoding, path, wanted)
    notes = (encoding.note, *table.notes) if encoding.note else table.notes
    return Table(table.columns, table.rows, notes)


def _format(file: BinaryIO, path: Path, wanted: WantedColumns, options: ReadOptions) -> Format:
    head = file.read(4096)
    file.seek(0)
    by_suffix = _BY_SUFFIX.get(path.suffix.lower())
    if by_suffix == "parquet" or head.startswith(b"PAR1"):
        return "parquet"
    if path.suffix.lower() == ".zip":
        raise PerpetuneError("it is an archive", where=str(path), do="bring it in with `perpetune ingest`")
    if by_suffix == "excel" or (head.startswith(b"PK\3\4") and by_suffix is None):
        return "excel"
    if not head.strip(b"\xef\xbb\xbf\xff\xfe \t\r\n"):
        _refuse_if_empty(file, path)
    if head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith((b'{"', b"[{", b"[\n", b"{\n", b"[\r", b"{\r")):
        return "json"
    if by_suffix is None and not _is_csv(head, path, wanted, options):
        raise PerpetuneError(
            f"files with the suffix {path.suffix or '(none)'} cannot be read",
            where=str(path),
            do=f"save it as one of {', '.join(SUFFIXES)}",
        )
    return by_suffix or "csv"


def _refuse_if_empty(file: BinaryIO, path: Path) -> None:
    while chunk := file.read(1 << 20):
        if chunk.strip(b"\xef\xbb\xbf\xff\xfe \t\r\n"):
            break
    else:
        raise PerpetuneError("the file is empty", where=str(path), do="add at least one example")
    file.seek(0)


def _is_csv(head: bytes, path: Path, wanted: WantedColumns, options: ReadOptions) -> bool:
    """Whether the first line names at least two columns that can be used."""
    start = io.BytesIO(head)
    try:
        table = csv_table(start, encoding_of(start, options.encoding), path, wanted, options.separator)
    except PerpetuneError:
        return False
    return sum(name in wanted.known for name in table.columns) >= 2
