"""Ending process groups with all that they started."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from contextlib import suppress

import psutil


def descendants(leader: psutil.Process) -> list[psutil.Process]:
    """The processes that a process has started, and theirs, now; [] if it has ended."""
    try:
        return leader.children(recursive=True)
    except psutil.Error:
        return []


def end_trees(leaders: Iterable[psutil.Process], seconds: float) -> None:
    """End the process groups of these leaders and all descendants: SIGTERM, and SIGKILL after `seconds`.

    Descendants in a session of their own are found too. A leader may have ended before what it started.
    """
    alive = [leader for leader in leaders if not _is_reused(leader)]
    everyone = [*alive, *(each for leader in alive for each in descendants(leader))]
    for leader in alive:
        signal_group(leader.pid, signal.SIGTERM)
    for each in everyone:
        with suppress(psutil.Error):
            each.terminate()
    psutil.wait_procs(everyone, seconds)
    for leader in alive:
        signal_group(leader.pid, signal.SIGKILL)
    kill(everyone)


def kill(processes: Iterable[psutil.Process]) -> None:
    for each in processes:
        with suppress(psutil.Error):  # psutil does not signal another process that got the same id
            each.kill()


def signal_group(leader: int, number: signal.Signals) -> None:
    """Signal a process group. Its id is not given to another process while a member lives."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, number)


def _is_reused(leader: psutil.Process) -> bool:
    """Whether another process has the id now."""
    try:
        return psutil.Process(leader.pid) != leader
    except psutil.Error:
        return False
