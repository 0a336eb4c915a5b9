"""The command of the container, which is the same in every service."""

from __future__ import annotations

import sys


def command(address: str) -> list[str]:
    return ["python", *_arguments(address)]


def command_here(address: str) -> list[str]:
    """The same, by the Python of this process."""
    return [sys.executable, *_arguments(address)]


def _arguments(address: str) -> list[str]:
    return ["-m", "perpetune.training.remote.worker", address]
