"""The addresses of the services of a running `perpetune up`, for other commands of the workspace."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from perpetune.runtime.processes.file_locks import is_locked

ADDRESSES = "addresses.env"
LOCK_FILE = "up.lock"
WORKSPACE_ID = "PERPETUNE_WORKSPACE_ID"
_NAMES = ("PREFECT_API_URL", "MLFLOW_TRACKING_URI", "PERPETUNE_GATEWAY_URL", WORKSPACE_ID)
_STARTED = "STARTED"


@dataclass(frozen=True)
class Addresses:
    """Environment variables with addresses, and the names of the services that `perpetune up` itself started."""

    variables: Mapping[str, str]
    started: frozenset[str]

    @property
    def urls(self) -> list[str]:
        return [url for name, url in self.variables.items() if name != WORKSPACE_ID]


def workspace_id(home: Path) -> str:
    """The id of the workspace with this home on this machine. A copy of the workspace elsewhere has another."""
    return hashlib.sha256(f"{socket.gethostname()}:{home.resolve()}".encode()).hexdigest()[:12]


def is_up(home: Path) -> bool:
    """Whether a `perpetune up` of this workspace runs or is starting; a killed one does not count."""
    return is_locked(home / LOCK_FILE)


def save_addresses(home: Path, variables: Mapping[str, str], started: Collection[str]) -> None:
    """Save the addresses for other commands of this workspace."""
    lines = [f"{name}={variables[name]}\n" for name in _NAMES if name in variables]
    lines.append(f"{_STARTED}={','.join(sorted(started))}\n")
    (home / ADDRESSES).write_text("".join(lines), encoding="utf-8")


def delete_addresses(home: Path) -> None:
    (home / ADDRESSES).unlink(missing_ok=True)


def saved_addresses(home: Path) -> Addresses | None:
    """The addresses of the running services; None if none run or they are starting."""
    file = home / ADDRESSES
    if not is_up(home) or not file.is_file():
        return None
    variables = dict(line.split("=", 1) for line in file.read_text(encoding="utf-8").split())
    started = variables.pop(_STARTED, "")
    return Addresses(variables, frozenset(started.split(",")) - {""})
