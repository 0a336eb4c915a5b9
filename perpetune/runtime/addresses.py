"""The addresses of the services of a running `perpetune up`, for other commands of the workspace."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from perpetune.runtime.file_locks import is_locked

ADDRESSES = "addresses.env"
LOCK_FILE = "up.lock"
_NAMES = ("PREFECT_API_URL", "MLFLOW_TRACKING_URI", "PERPETUNE_GATEWAY_URL")


def is_up(home: Path) -> bool:
    """Whether a `perpetune up` of this workspace runs or is starting; a killed one does not count."""
    return is_locked(home / LOCK_FILE)


def save_addresses(home: Path, variables: Mapping[str, str]) -> None:
    """Save the addresses for other commands of this workspace."""
    lines = [f"{name}={variables[name]}\n" for name in _NAMES]
    (home / ADDRESSES).write_text("".join(lines), encoding="utf-8")


def delete_addresses(home: Path) -> None:
    (home / ADDRESSES).unlink(missing_ok=True)


def saved_addresses(home: Path) -> dict[str, str]:
    """Environment variables with the addresses of the running services; {} if none run or they are starting."""
    file = home / ADDRESSES
    if not is_up(home) or not file.is_file():
        return {}
    return dict(line.split("=", 1) for line in file.read_text(encoding="utf-8").split())
