"""File locks (flock) that the operating system releases when the process ends."""

from __future__ import annotations

import fcntl
import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import psutil

_RETRY_SECONDS = 0.1  # longer than `is_locked` holds the lock


def acquire(file: Path) -> BinaryIO | None:
    """Lock the file until all processes that inherit it have closed it; None if it is already locked."""
    held = _open(file)
    if not _lock(held):
        time.sleep(_RETRY_SECONDS)
        if not _lock(held):
            held.close()
            return None
    held.truncate(0)
    held.write(f"{os.getpid()}\n".encode())
    held.flush()
    return held


def is_locked(file: Path) -> bool:
    if not file.exists():
        return False
    with _open(file) as probe:
        return not _lock(probe)


def lock_owner(file: Path) -> int | None:
    """The process that locked the file last; it may have ended while its children still hold the lock."""
    words = file.read_text(encoding="utf-8").split()
    return int(words[0]) if words else None


def end_leftovers(file: Path, seconds: float) -> bool:
    """End the services left by a killed owner of the lock, with their children; False if the owner still runs."""
    holders = [each for each in psutil.process_iter() if _holds(each, file)]
    if lock_owner(file) in [each.pid for each in holders]:
        return False
    # Services are session leaders; other commands may have the file open only to test the lock.
    holders = [each for each in holders if os.getsid(each.pid) == each.pid]
    ended = bool(holders)
    for number in (signal.SIGTERM, signal.SIGKILL):
        for each in holders:
            with suppress(ProcessLookupError):
                os.killpg(each.pid, number)
        _, holders = psutil.wait_procs(holders, seconds)
    return ended


def _holds(process: psutil.Process, file: Path) -> bool:
    try:
        return any(Path(each.path) == file.resolve() for each in process.open_files())
    except psutil.Error:  # it ended, or belongs to another user
        return False


def _open(file: Path) -> BinaryIO:
    file.parent.mkdir(parents=True, exist_ok=True)
    return file.open("a+b")


def _lock(file: BinaryIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
