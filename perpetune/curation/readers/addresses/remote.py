"""Files at addresses that fsspec reads: s3://, gs://, az://, https:// and others."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

from perpetune.curation.readers.addresses.local import is_readable
from perpetune.errors import PerpetuneError

_PACKAGES = {
    "s3": "s3fs",
    "s3a": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "az": "adlfs",
    "abfs": "adlfs",
    "abfss": "adlfs",
}


def is_remote(address: str) -> bool:
    return "://" in address


def download(address: str, folder: Path) -> list[Path]:
    """Copies of the file, or of the files of the folder or glob, at this address. Raises PerpetuneError."""
    system, path = _file_system(address)
    try:
        names = _names(system, path)
        if not names:
            raise PerpetuneError("there is no file that can be read", where=address)
        return [_copied(system, name, folder / str(number)) for number, name in enumerate(names)]
    except PerpetuneError:
        raise
    # Each file system has errors of its own, which share no class.
    except Exception as fault:
        what = str(fault) or type(fault).__name__
        raise PerpetuneError(f"it cannot be read: {what.splitlines()[0]}", where=address) from None


def _file_system(address: str) -> tuple[Any, str]:
    # Late: only remote addresses need it.
    from fsspec.core import url_to_fs

    protocol = address.partition("://")[0]
    try:
        system, path = url_to_fs(address)
    except (ImportError, ValueError) as fault:
        package = _PACKAGES.get(protocol)
        do = f"pip install {package}" if package else None
        reason = f"{protocol}:// needs the package {package}" if package else str(fault).splitlines()[0]
        raise PerpetuneError(reason, where=address, do=do) from None
    return system, path


def _names(system: Any, path: str) -> list[str]:
    if any(mark in path for mark in "*?[") and not system.exists(path):
        return sorted(name for name in system.glob(path) if system.isfile(name))
    if system.isdir(path):
        return sorted(name for name in system.find(path) if is_readable(PurePosixPath(name.lstrip("/"))))
    return [path]


def _copied(system: Any, name: str, folder: Path) -> Path:
    folder.mkdir(parents=True)
    target = folder / (PurePosixPath(name.split("?")[0]).name or "download")
    system.get_file(name, str(target))
    return target
