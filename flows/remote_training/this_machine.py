"""A process of this machine: to try an object store and the options before a service is paid for."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field

from perpetune.flows.remote_training.container import command_here


@dataclass(frozen=True)
class ThisMachine:
    _processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, address: str) -> str:
        process = subprocess.Popen(command_here(address), start_new_session=True)
        name = f"process {process.pid}"
        self._processes[name] = process
        return name

    def why_ended(self, job: str) -> str | None:
        status = self._processes[job].poll()
        return None if status is None else f"it ended with status {status}"

    def stop(self, job: str) -> None:
        self._processes[job].terminate()
