"""Archives of files: .zip, and .tar in any compression. Their members are copied one by one, under names of our own."""

from __future__ import annotations

import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from lzma import LZMAError
from pathlib import Path, PurePath, PurePosixPath
from typing import IO

from perpetune.curation.readers.addresses.compressed import opened, without_compression
from perpetune.curation.readers.file_format import SUFFIXES
from perpetune.errors import PerpetuneError

ARCHIVES = (".zip", ".tar", ".tgz", ".tbz", ".tbz2", ".txz")
_PARTS_OF_A_WORKBOOK = "[Content_Types].xml"
_USTAR = slice(257, 262)


@dataclass(frozen=True)
class _Member:
    name: str
    open: Callable[[], IO[bytes] | None]


def is_archive(path: PurePath) -> bool:
    """Whether the name is that of an archive."""
    return without_compression(path).suffix.lower() in ARCHIVES


def extracted(path: Path, folder: Path, shown: str) -> list[tuple[Path, str]] | None:
    """Copies of the readable members in `folder`, with their names in the archive; None if the file is no archive.

    Raises PerpetuneError, which names the file as `shown`, if it is damaged, encrypted or has no file that can be read.
    """
    kind = _kind(path)
    if kind is None:
        return None
    try:
        with kind(path) as members:
            chosen = _readable(list(members))
            if not chosen:
                raise PerpetuneError(f"the archive has no {', '.join(SUFFIXES)} file", where=shown)
            return [(_copied(each, folder / str(number)), each.name) for number, each in enumerate(chosen)]
    except RuntimeError:  # of zipfile
        raise PerpetuneError("the archive is encrypted", where=shown, do="extract it, and ingest the folder") from None
    except NotImplementedError as fault:
        raise PerpetuneError(
            f"the archive cannot be read: {fault}", where=shown, do="extract it, and ingest the folder"
        ) from None
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, LZMAError, ValueError):
        raise PerpetuneError("the archive is damaged or cut off", where=shown, do="copy or download it again") from None


def _kind(path: Path) -> Callable[[Path], AbstractContextManager[Iterator[_Member]]] | None:
    """How to open the archive, by its first bytes: an Excel workbook is a .zip too, and not meant."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return None if _PARTS_OF_A_WORKBOOK in archive.namelist() else _zip_members
    if path.suffix.lower() == ".zip":
        return _zip_members
    if without_compression(path).suffix.lower() in SUFFIXES:  # so that a large file is not decompressed twice
        return None
    with opened(path) as file:
        return _tar_members if file.read(_USTAR.stop)[_USTAR] == b"ustar" else None


@contextmanager
def _zip_members(path: Path) -> Iterator[Iterator[_Member]]:
    with zipfile.ZipFile(path) as archive:
        found = (each for each in archive.infolist() if not each.is_dir())
        yield (_Member(each.filename, partial(archive.open, each)) for each in found)


@contextmanager
def _tar_members(path: Path) -> Iterator[Iterator[_Member]]:
    with opened(path) as file, tarfile.open(fileobj=file, mode="r:") as archive:
        yield (_Member(each.name, partial(archive.extractfile, each)) for each in archive if each.isfile())


def _readable(members: list[_Member]) -> list[_Member]:
    """Those with the suffix of a format; or the only one there is, whatever it is called."""
    visible = [each for each in members if not _is_hidden(PurePosixPath(each.name))]
    known = [each for each in visible if without_compression(PurePosixPath(each.name)).suffix.lower() in SUFFIXES]
    found = known or (visible if len(visible) == 1 and not is_archive(PurePosixPath(visible[0].name)) else [])
    return sorted(found, key=lambda each: each.name)


def _is_hidden(name: PurePosixPath) -> bool:
    return any((part.startswith(".") and part != "..") or part == "__MACOSX" for part in name.parts)


def _copied(member: _Member, folder: Path) -> Path:
    folder.mkdir(parents=True)
    target = folder / (PurePosixPath(member.name.replace("\\", "/")).name or "member")
    with target.open("wb") as copy:
        stream = member.open()
        if stream is not None:
            with stream:
                shutil.copyfileobj(stream, copy, 1 << 20)
    return target
