"""Writing to the inbox: one process at a time, and every file whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from perpetune.errors import PerpetuneError

_PATIENCE = 60.0


@contextmanager
def locked(inbox: Path, patience: float = _PATIENCE) -> Iterator[None]:
    """The inbox, created if needed, for this process alone. Raises PerpetuneError after `patience` seconds of waiting."""
    inbox.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(inbox, os.O_RDONLY)
    try:
        deadline = time.monotonic() + patience
        while not _taken(descriptor):
            if time.monotonic() > deadline:
                raise PerpetuneError("another ingestion has been running for a while", where=str(inbox), do="try again")
            time.sleep(0.05)
        yield
    finally:
        os.close(descriptor)


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write lines to a file, which appears when it is complete; what is unfinished is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".unfinished")
    try:
        with unfinished.open("w", encoding="utf-8") as file:
            file.writelines(line + "\n" for line in lines)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


@contextmanager
def plain_errors(place: Path, do: str | None = None) -> Iterator[None]:
    """An error of the disk, such as a full or a read-only one, as a sentence; `do` is what helps if `place` is full."""
    try:
        yield
    except OSError as fault:
        raise PerpetuneError(
            f"it cannot be written: {fault.strerror or fault}; nothing was added",
            where=str(fault.filename or place),
            do=do if fault.errno == errno.ENOSPC else None,
        ) from None
