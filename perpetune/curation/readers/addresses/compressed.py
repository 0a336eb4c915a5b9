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
from io import BufferedReader
from pathlib import Path, PurePath
from typing import IO, BinaryIO, TypeVar, cast

from perpetune.errors import PerpetuneError

AnyPath = TypeVar("AnyPath", bound=PurePath)

SUFFIXES = (".gz", ".bz2", ".xz", ".zst", ".zstd")
_CHUNK = 1 << 20
_MAGIC = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstandard"}


def without_compression(path: AnyPath) -> AnyPath:
    """The name without the suffix of a compression: `a.jsonl.gz` is `a.jsonl`."""
    return path.with_suffix("") if path.suffix.lower() in SUFFIXES else path


def opened_as_it_is(path: Path) -> BufferedReader:
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
        if kind == "zstandard":
            _decompress_frames(file, plain)
            return
        with _stream(file, kind) as stream:
            shutil.copyfileobj(stream, plain, _CHUNK)
    except OSError as fault:
        if fault.errno:
            raise PerpetuneError(f"it cannot be decompressed: {fault.strerror}", where=str(path)) from None
        raise _damaged(kind, path) from None
    except (EOFError, zlib.error, lzma.LZMAError, ValueError):
        raise _damaged(kind, path) from None


def _decompress_frames(file: BinaryIO, plain: IO[bytes]) -> None:
    """All frames of a file in zstandard, whose own stream takes a file that is cut off for a whole one."""
    # Late: the only one that is not in the standard library.
    import zstandard

    frame = zstandard.ZstdDecompressor().decompressobj()
    begun = False
    while chunk := file.read(_CHUNK):
        while chunk:
            if frame.eof:
                frame, begun = zstandard.ZstdDecompressor().decompressobj(), False
            begun = True
            try:
                plain.write(frame.decompress(chunk))
            except zstandard.ZstdError as fault:
                raise ValueError(str(fault)) from None
            chunk = frame.unused_data if frame.eof else b""
    if begun and not frame.eof:
        raise EOFError


def _damaged(kind: str, path: Path) -> PerpetuneError:
    return PerpetuneError(f"the {kind} file is damaged or cut off", where=str(path), do="copy or download it again")


def _stream(file: BinaryIO, kind: str) -> IO[bytes]:
    if kind == "gzip":
        return cast(IO[bytes], gzip.GzipFile(fileobj=file))
    if kind == "bzip2":
        return bz2.BZ2File(file)
    return lzma.LZMAFile(file)
