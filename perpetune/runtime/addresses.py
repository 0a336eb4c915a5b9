"""Whether a `perpetune up` runs in a workspace, and where its services listen."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from perpetune.runtime.file_locks import is_claimed

ADDRESSES = "addresses.env"
CLAIM = "up.lock"
_NAMES = ("PREFECT_API_URL", "MLFLOW_TRACKING_URI", "PERPETUNE_GATEWAY_URL")


def is_up(home: Path) -> bool:
    """Whether one runs, or starts. One that has died is none, whatever files it has left."""
    return is_claimed(home / CLAIM)


def remember(home: Path, variables: Mapping[str, str]) -> None:
    """Leave word of the addresses for other commands of this workspace."""
    lines = [f"{name}={variables[name]}\n" for name in _NAMES]
    (home / ADDRESSES).write_text("".join(lines), encoding="utf-8")


def forget(home: Path) -> None:
    (home / ADDRESSES).unlink(missing_ok=True)


def remembered(home: Path) -> dict[str, str]:
    """The environment variables that name the services which run here; {} if none run, or they only start."""
    file = home / ADDRESSES
    if not is_up(home) or not file.is_file():
        return {}
    return dict(line.split("=", 1) for line in file.read_text(encoding="utf-8").split())
