"""A service as a process that is killed, stopped and given another clock, and that is started again when it ends."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from perpetune.runtime.processes.process_tree import descendants

_STEP_SECONDS = 0.5


@dataclass
class Process:
    """`held` keeps the keeper from starting it again. `clock` is the file of clock.c, if that could be compiled."""

    name: str
    command: tuple[str, ...]
    folder: Path
    environment: Mapping[str, str]
    log: Path
    healthy: Callable[[], bool]
    clock: Path | None = None
    held: bool = False
    restarts: int = 0
    _process: subprocess.Popen[bytes] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self) -> None:
        with self._lock, self.log.open("ab") as log:
            if self._process is not None and self._process.poll() is None:
                return
            self._process = subprocess.Popen(
                self.command,
                cwd=self.folder,
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def processes(self) -> list[psutil.Process]:
        """The process and all that it has started, children first."""
        if self._process is None:
            return []
        try:
            own = psutil.Process(self._process.pid)
            return [*reversed(descendants(own)), own]
        except psutil.NoSuchProcess:
            return []

    def children(self) -> list[psutil.Process]:
        return self.processes()[:-1]

    def signal(self, number: signal.Signals) -> None:
        send(self.processes(), number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait(30)

    def terminate(self, seconds: float) -> None:
        """SIGTERM, and after these seconds SIGKILL."""
        self.held = True
        if self._process is None:
            return
        others = self.children()
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
        send(others, signal.SIGKILL)

    def set_clock(self, seconds: int) -> None:
        """How much its wall clock is ahead."""
        assert self.clock
        write_clock(self.clock, seconds)


def write_clock(file: Path, seconds: int) -> None:
    """As clock.c reads it; in place, because the file is mapped into the processes."""
    with file.open("r+b" if file.exists() else "wb") as opened:
        opened.write(struct.pack("=q", seconds))


def send(processes: list[psutil.Process], number: signal.Signals) -> None:
    for each in processes:
        with suppress(psutil.NoSuchProcess):
            each.send_signal(number)


class Keeper:
    """Starts services again that have ended, as `restart: always` does."""

    def __init__(self, processes: Mapping[str, Process]) -> None:
        self._processes = processes
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="keeper", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _keep(self) -> None:
        while not self._stopping.wait(_STEP_SECONDS):
            for each in self._processes.values():
                if not each.held and not each.alive:
                    each.restarts += 1
                    each.start()


def base_environment() -> dict[str, str]:
    """This process's environment without addresses of services that it may know."""
    own = ("PERPETUNE_", "MLFLOW_", "PREFECT_", "AWS_")
    return {name: value for name, value in os.environ.items() if not name.startswith(own)}
