"""All ways to name data, as local files."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from perpetune.curation.readers.addresses.archives import extracted
from perpetune.curation.readers.addresses.hub import is_hub, save_splits
from perpetune.curation.readers.addresses.local import local_files
from perpetune.curation.readers.addresses.remote import download, is_remote
from perpetune.errors import PerpetuneError

STANDARD_INPUT = "-"


@dataclass(frozen=True)
class NamedFile:
    """A local file, and the address that the user knows it by."""

    path: Path
    address: str


@contextmanager
def local_copies(address: str) -> Iterator[list[NamedFile]]:
    """The local files of an address: `-`, a file, folder, glob, fsspec address or `hf:` data set; of an archive its members.

    Copies of what is elsewhere are removed at the end. Raises PerpetuneError if there is nothing to read.
    """
    with tempfile.TemporaryDirectory(prefix="perpetune-") as folder:
        try:
            files = _named_files(address, Path(folder) / "copies")
            found = [part for number, file in enumerate(files) for part in _parts(file, Path(folder) / str(number))]
        except OSError as fault:
            raise PerpetuneError(f"it cannot be copied: {fault.strerror}", where=address) from None
        yield found


def _named_files(address: str, folder: Path) -> list[NamedFile]:
    elsewhere = address == STANDARD_INPUT or is_hub(address) or is_remote(address) or Path(address).is_fifo()
    if not elsewhere:
        return [NamedFile(path, str(path)) for path in local_files(address)]
    folder.mkdir()
    files = _copies(address, folder)
    names = [address] if len(files) == 1 else [f"{address} ({file.name})" for file in files]
    return [NamedFile(file, name) for file, name in zip(files, names, strict=True)]


def _parts(file: NamedFile, folder: Path) -> list[NamedFile]:
    """The members if the file is an archive; else the file, and a missing one too, of which its reader speaks."""
    members = extracted(file.path, folder, file.address) if file.path.is_file() else None
    return [file] if members is None else [NamedFile(path, f"{file.address} ({name})") for path, name in members]


def _copies(address: str, folder: Path) -> list[Path]:
    if is_hub(address):
        return save_splits(address, folder)
    if is_remote(address):
        return download(address, folder)
    path = folder / ("stdin" if address == STANDARD_INPUT else "pipe")
    with path.open("wb") as copy, _stream(address) as stream:
        shutil.copyfileobj(stream, copy)
    return [path]


def _stream(address: str) -> AbstractContextManager[BinaryIO]:
    """What can be read only once: standard input, or a pipe such as that of `<(command)`."""
    return nullcontext(sys.stdin.buffer) if address == STANDARD_INPUT else Path(address).open("rb")
