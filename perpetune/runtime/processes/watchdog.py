"""`python -m perpetune.runtime.processes.watchdog`: ends the services of a supervisor that was killed.

The supervisor writes the process id of each service that it starts to this process's standard input, one a line. The
operating system closes that pipe when the supervisor ends, however it ends, on every POSIX system. The last line of an
orderly end is DONE. The arguments are the mark of the services' processes (`process_tree`), and the files that only a
running supervisor has: they are deleted when it was killed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from perpetune.runtime.processes.process_tree import end_trees

DONE = "done"
STOP_SECONDS = 10.0


class Watchdog:
    """The watchdog process of a supervisor; it runs while the `with` block does, and longer only to end services."""

    def __init__(self, mark: str, files: Sequence[Path] = ()) -> None:
        self._mark = mark
        self._files = [str(file.absolute()) for file in files]

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, self._mark, *self._files],
            env={**os.environ, "PYTHONSAFEPATH": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,  # signals of the terminal do not reach it
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._send(DONE)
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
        except BrokenPipeError:
            pass
        self._process.wait()

    def watch(self, pid: int) -> None:
        """End this process group too if the supervisor is killed."""
        self._send(str(pid))

    def _send(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{line}\n")
            self._process.stdin.flush()
        except BrokenPipeError:  # somebody killed it: the services run without one
            pass


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    leaders: list[psutil.Process] = []
    for line in sys.stdin:
        if line.strip() == DONE:
            return
        try:
            leaders.append(psutil.Process(int(line)))
        except psutil.NoSuchProcess:  # it ended at once
            pass
    mark, *files = sys.argv[1:]
    for file in files:
        Path(file).unlink(missing_ok=True)
    end_trees(leaders, mark, STOP_SECONDS)


if __name__ == "__main__":
    main()
