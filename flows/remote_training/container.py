"""The command of the container, which is the same in every service."""

from __future__ import annotations


def command(address: str) -> list[str]:
    return ["python", "-m", "perpetune.training.remote.worker", address]
