"""The content of one file without the erased rows, whatever its format."""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from perpetune.erasure.lines import example_of, is_erased, without_texts
from perpetune.erasure.scrubber import Scrubber
from perpetune.erasure.selection import Targets
from perpetune.records import Example, to_json

_PACKED = re.compile(r'"(H4sI[A-Za-z0-9+/]{20,}={0,2})"')
_GZIP, _PARQUET, _ZSTD = b"\x1f\x8b", b"PAR1", b"\x28\xb5\x2f\xfd"


@dataclass(frozen=True)
class Cleaned:
    """A content without the erased rows; `rows` were dropped. `data` is None if there is nothing to change."""

    data: bytes | None
    rows: int = 0


def examples_in(data: bytes) -> Iterator[Example]:
    """The examples in a file of JSON Lines, those that were quarantined too; none in another file."""
    data = _unpacked(data)
    if not data.startswith(b"{"):
        return
    for line in data.split(b"\n"):
        value = _object(line)
        row = example_of(value) if value is not None else None
        if row is not None:
            yield row


def cleaned(data: bytes, targets: Targets, scrubber: Scrubber) -> Cleaned:
    """Drop the rows of a file of JSON Lines, and scrub the texts of a report."""
    if data.startswith(_GZIP):
        inner = cleaned(gzip.decompress(data), targets, scrubber)
        return Cleaned(None if inner.data is None else gzip.compress(inner.data, mtime=0), inner.rows)
    if data.startswith(_ZSTD):
        return _cleaned_zstd(data, targets, scrubber)
    if data.startswith(_PARQUET):
        return _cleaned_parquet(data, targets, scrubber)
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return Cleaned(None)
    objects = _lines(text)
    if objects is not None:
        return _cleaned_lines(text, objects, targets, scrubber)
    found = _scrubbed(text, scrubber)
    return Cleaned(None if found == text else found.encode())


def is_opaque(data: bytes) -> bool:
    """Whether a content is of no format that can be cleaned."""
    if data.startswith((_GZIP, _ZSTD, _PARQUET)):
        return False
    try:
        data.decode()
    except UnicodeDecodeError:
        return True
    return False


def _unpacked(data: bytes) -> bytes:
    if data.startswith(_GZIP):
        return gzip.decompress(data)
    if data.startswith(_ZSTD):
        import zstandard

        return zstandard.ZstdDecompressor().decompressobj().decompress(data)
    return data


def _cleaned_zstd(data: bytes, targets: Targets, scrubber: Scrubber) -> Cleaned:
    import zstandard

    inner = cleaned(_unpacked(data), targets, scrubber)
    return Cleaned(None if inner.data is None else zstandard.ZstdCompressor().compress(inner.data), inner.rows)


def _cleaned_parquet(data: bytes, targets: Targets, scrubber: Scrubber) -> Cleaned:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(pa.BufferReader(data))
    values = table.to_pylist()
    kept = [not (is_erased(value, targets, scrubber) or scrubber.holds(value)) for value in values]
    if all(kept):
        return Cleaned(None)
    written = pa.BufferOutputStream()
    pq.write_table(table.filter(pa.array(kept)), written)
    return Cleaned(written.getvalue().to_pybytes(), kept.count(False))


def _lines(text: str) -> list[tuple[str, dict[str, Any]]] | None:
    """The lines with the objects they hold; None if one holds none."""
    found = []
    for line in text.split("\n"):
        if line.strip():
            value = _object(line)
            if value is None:
                return None
            found.append((line, value))
    return found or None


def _object(line: str | bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _cleaned_lines(
    text: str, objects: list[tuple[str, dict[str, Any]]], targets: Targets, scrubber: Scrubber
) -> Cleaned:
    lines: list[str] = []
    dropped = 0
    for line, value in objects:
        if is_erased(value, targets, scrubber):
            dropped += 1
        else:
            new_value = without_texts(value, scrubber)
            same = new_value == value
            lines.append(line if same else json.dumps(new_value, ensure_ascii=False, separators=(",", ":")))
    new = "".join(line + "\n" for line in lines)
    return Cleaned(None if new.rstrip("\n") == text.rstrip("\n") else new.encode(), dropped)


def _scrubbed_pack(packed: str, scrubber: Scrubber) -> str:
    """The same gzip file in Base64, as a page of a drift report holds it, unless a text in it is to be erased."""
    try:
        text = gzip.decompress(base64.b64decode(packed)).decode()
    except (ValueError, OSError, EOFError):
        return packed
    new = scrubber.text(text)
    return packed if new == text else base64.b64encode(gzip.compress(new.encode(), mtime=0)).decode()


def _scrubbed(text: str, scrubber: Scrubber) -> str:
    """A report; if it is JSON, with its strings scrubbed one by one, so that it stays JSON. Packed parts are read through."""
    text = _PACKED.sub(lambda found: f'"{_scrubbed_pack(found[1], scrubber)}"', text)
    if text.lstrip()[:1] in ("{", "["):
        try:
            value = json.loads(text)
        except ValueError:
            return scrubber.text(text)
        new = scrubber.value(value)
        if new == value:
            return text
        return to_json(new) if "\n" in text.strip() else json.dumps(new, ensure_ascii=False)
    return scrubber.text(text)
