"""Local files: by name, of a folder, or of a glob."""

from __future__ import annotations

import glob
from pathlib import Path, PurePath

from perpetune.curation.readers.addresses.archives import is_archive
from perpetune.curation.readers.addresses.compressed import without_compression
from perpetune.curation.readers.file_format import SUFFIXES
from perpetune.errors import PerpetuneError


def local_files(address: str) -> list[Path]:
    """The file, the readable files below a folder, or the files of a glob, in order. Raises PerpetuneError if none."""
    path = Path(address).expanduser()
    if path.is_dir():
        return files_below(path)
    if path.exists() or not glob.has_magic(address):
        return [path]
    found = [Path(name) for name in sorted(glob.glob(str(path), recursive=True))]  # noqa: PTH207 (the pattern may be absolute)
    files = [file for file in found if file.is_file()]
    if not files:
        raise PerpetuneError("no file matches", where=address)
    return files


def files_below(folder: Path) -> list[Path]:
    """All files below a folder that can be read, by their suffix, hidden ones apart. Raises PerpetuneError if none."""
    files = [file for file in sorted(folder.rglob("*")) if file.is_file() and is_readable(file.relative_to(folder))]
    if not files:
        raise PerpetuneError(f"the folder has no {', '.join(SUFFIXES)} file", where=str(folder))
    return files


def unread_below(folder: Path) -> list[str]:
    """The files below a folder that are left out for their suffix, hidden ones apart."""
    names = (file.relative_to(folder) for file in sorted(folder.rglob("*")) if file.is_file())
    return [str(name) for name in names if not _is_hidden(name) and not is_readable(name)]


def is_readable(path: PurePath) -> bool:
    return not _is_hidden(path) and (without_compression(path).suffix.lower() in SUFFIXES or is_archive(path))


def _is_hidden(path: PurePath) -> bool:
    return any(part.startswith(".") for part in path.parts)
