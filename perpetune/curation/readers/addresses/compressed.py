"""Files compressed with gzip, bzip2, xz or zstandard, by their first bytes."""

from __future__ import annotations

import bz2
import gzip
import lzma
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO, cast

from perpetune.errors import PerpetuneError

SUFFIXES = (".gz", ".bz2", ".xz", ".zst", ".zstd")
_MAGIC = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstandard"}


def without_compression(path: Path) -> Path:
    """The name without the suffix of a compression: `a.jsonl.gz` is `a.jsonl`."""
    return path.with_suffix("") if path.suffix.lower() in SUFFIXES else path


def opened_as_it_is(path: Path) -> BinaryIO:
    """The file open for reading. Raises PerpetuneError if it cannot be."""
    try:
        return path.open("rb")
    except FileNotFoundError:
        raise PerpetuneError("the file does not exist", where=str(path)) from None
    except OSError as fault:
        raise PerpetuneError(f"the file cannot be read: {fault.strerror}", where=str(path)) from None


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """The file open for reading, decompressed into a temporary file if needed. Raises PerpetuneError if it cannot be."""
    with opened_as_it_is(path) as file:
        head = file.read(8)
        file.seek(0)
        kind = next((name for magic, name in _MAGIC.items() if head.startswith(magic)), None)
        if kind is None:
            yield file
            return
        with tempfile.TemporaryFile(prefix="perpetune-") as plain:
            _decompress(file, kind, plain, path)
            plain.seek(0)
            yield cast(BinaryIO, plain)


def _decompress(file: BinaryIO, kind: str, plain: IO[bytes], path: Path) -> None:
    try:
        with _stream(file, kind) as stream:
            shutil.copyfileobj(stream, plain, 1 << 20)
    except OSError as fault:
        if fault.errno:
            raise PerpetuneError(f"it cannot be decompressed: {fault.strerror}", where=str(path)) from None
        raise _damaged(kind, path) from None
    except (EOFError, zlib.error, lzma.LZMAError, ValueError):
        raise _damaged(kind, path) from None


def _damaged(kind: str, path: Path) -> PerpetuneError:
    return PerpetuneError(f"the {kind} file is damaged or cut off", where=str(path), do="copy or download it again")


def _stream(file: BinaryIO, kind: str) -> IO[bytes]:
    if kind == "gzip":
        return cast(IO[bytes], gzip.GzipFile(fileobj=file))
    if kind == "bzip2":
        return bz2.BZ2File(file)
    if kind == "xz":
        return lzma.LZMAFile(file)
    # Late: the only one that is not in the standard library.
    import zstandard

    return cast(IO[bytes], zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True))
