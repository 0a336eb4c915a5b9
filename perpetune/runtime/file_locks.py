"""Claims on files: held by one process of this machine, and given back however it ends."""

from __future__ import annotations

import fcntl
import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import psutil

_SECOND_TRY = 0.1  # seconds; a look at who holds it takes less


def claim(file: Path) -> BinaryIO | None:
    """Hold the file until it is closed, by every process that inherits it; None if it is held already."""
    held = _open(file)
    if not _lock(held):
        time.sleep(_SECOND_TRY)
        if not _lock(held):
            held.close()
            return None
    held.truncate(0)
    held.write(f"{os.getpid()}\n".encode())
    held.flush()
    return held


def is_claimed(file: Path) -> bool:
    if not file.exists():
        return False
    with _open(file) as probe:
        return not _lock(probe)


def claimed_by(file: Path) -> int | None:
    """The process that has claimed it last; it may have ended, and left the claim to those it started."""
    words = file.read_text(encoding="utf-8").split()
    return int(words[0]) if words else None


def end_leftovers(file: Path, seconds: float) -> bool:
    """End the services that hold the file for one that was killed, and what they have started; False if it runs."""
    holders = [each for each in psutil.process_iter() if _holds(each, file)]
    if claimed_by(file) in [each.pid for each in holders]:
        return False
    # Services lead sessions of their own; another command may be looking at the file just now.
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
    except psutil.Error:  # gone by now, or another user's
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
