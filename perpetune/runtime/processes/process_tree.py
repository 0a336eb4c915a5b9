"""Ending process groups with all that they started.

A process that outlives its parent is no descendant of anything any more, and one in a session of its own is in no known
group. So services also carry a mark in their environment, which all that they start inherits, as Jenkins does with its
builds. Both ways are used: a program may overwrite its environment, or give its children another.
"""

from __future__ import annotations

import os
import secrets
import signal
from collections.abc import Iterable
from contextlib import suppress

import psutil

_ROUNDS = 20
_ROUND_SECONDS = 1.0


def new_mark() -> str:
    """The name of an environment variable that no other process has."""
    return f"PERPETUNE_SERVICE_{secrets.token_hex(8)}"


def marked(mark: str, service: str | None = None) -> list[psutil.Process]:
    """The processes that run now with this mark, of one service or of all; its value is the service's name."""
    return [each for each in psutil.process_iter() if _is_marked(each, mark, service)]


def kill_marked(mark: str, service: str | None = None) -> None:
    """Kill the processes with this mark, and those that they start meanwhile, and wait until they have ended."""
    for _ in range(_ROUNDS):
        found = marked(mark, service)
        if not found:
            return
        kill(found)
        psutil.wait_procs(found, _ROUND_SECONDS)


def descendants(leader: psutil.Process) -> list[psutil.Process]:
    """The processes that a process has started, and theirs, now; [] if it has ended."""
    try:
        return leader.children(recursive=True)
    except psutil.Error:
        return []


def end_trees(leaders: Iterable[psutil.Process], mark: str, seconds: float) -> None:
    """End the groups of these leaders, their descendants and what has the mark: SIGTERM, and SIGKILL after `seconds`.

    A leader may have ended before what it started.
    """
    alive = [leader for leader in leaders if not _is_reused(leader)]
    everyone = list({*alive, *(each for leader in alive for each in descendants(leader)), *marked(mark)})
    for leader in alive:
        signal_group(leader.pid, signal.SIGTERM)
    for each in everyone:
        with suppress(psutil.Error):
            each.terminate()
    psutil.wait_procs(everyone, seconds)
    for leader in alive:
        signal_group(leader.pid, signal.SIGKILL)
    kill(everyone)
    kill_marked(mark)


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


def _is_marked(process: psutil.Process, mark: str, service: str | None) -> bool:
    try:
        name = process.environ().get(mark)
    except psutil.Error:  # another user's, or it has ended
        return False
    return name is not None and service in (None, name)
